"""How a matrix product becomes cells: as one MMULT a row, or as a dot product a cell, for programs that are faster so.

Templates say MMULT({row of a band},{weight}). As dot products it takes two helper bands: the row standing upright, a
column for each token, and under each token a column of SUMPRODUCTs, which the row then shows lying down. LibreOffice
7.4 multiplies two columns 2 to 5 times faster than MMULT does, and a column of formulas alike on all cores.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xlgpt.config import GPT2Config
from xlgpt.reference import Tensors
from xlgpt.template import Band, Stage, size, weights

CHOICES = ("auto", "mmult", "sumproduct")
SLICE = 512  # rows of a matrix that LibreOffice multiplies at a time: more no longer fit the cache
# LibreOffice 7.4 calculates no formula with MATCH in threads. In threads, rows that wait for a token of the row above
# would be a circle to it (Err:522).
UNTHREADED = "{number}*MATCH({number},{number},0)"

OF_A_ROW = re.compile(r"MMULT\(\{([^{}\[\]]+)\},\{([^{}\[\]]+)\}\)")  # a band's row times a weight
OF_A_MATRIX = re.compile(r"MMULT\(\{[^{}\[\]]+\},TRANSPOSE\(")  # a whole weight times a row: a column of dot products


@dataclass(frozen=True)
class Product:
    """A matrix product as dot products, by names: of a band's rows, upright in `column`, with a weight's columns."""

    name: str
    column: str
    rows: str
    weight: str


def dot_products(stages: list[Stage], config: GPT2Config, writes_on: bool) -> tuple[list[Stage], tuple[Product, ...]]:
    """The stages with dot products in place of matrix products, and what their helper bands hold.

    writes_on: whether a row may have to wait for the token that the row above it chooses.
    """
    bands = {band.name: band for stage in stages for band in stage.bands}
    widths = {weight.name: size(weight.shape[-1], config) for weight in weights(config)}
    for stage in stages:
        widths |= {part.name: size(part.columns[1], config) - size(part.columns[0], config) for part in stage.slices}
    number = UNTHREADED if writes_on else "{number}"
    changed, found = [], []
    for stage in stages:
        products = list(_products(stage, bands, widths))
        helpers = list(_helpers(products, bands, widths, config, number)) if products else []
        kept = tuple(_rewritten(band, products) for band in stage.bands)
        changed.append(replace(stage, bands=(*kept, *helpers)))
        found += products
    return changed, tuple(found)


def _products(stage: Stage, bands: dict[str, Band], widths: dict[str, int]) -> Iterator[Product]:
    """The products of a token's row with a weight, in a stage's formulas."""
    for band in stage.bands:
        written = OF_A_ROW.search(band.formula) if band.per == "row" and band.rows == "token" else None
        if written:
            rows, weight = (
                next((scope + name for scope in ("", *stage.scope) if scope + name in known), "")
                for name, known in ((written[1], bands), (written[2], widths))
            )
            if rows and weight and bands[rows].rows == "token":
                yield Product(f"{band.name}.product", f"{rows}.column", rows, weight)


def _rewritten(band: Band, products: list[Product]) -> Band:
    if any(product.name == f"{band.name}.product" for product in products):
        return replace(band, formula=OF_A_ROW.sub(f"TRANSPOSE({{{band.name}.product[:, token]}})", band.formula))
    if band.per == "band" and OF_A_MATRIX.search(band.formula):
        return replace(band, per="slice")
    return band


def _helpers(
    products: list[Product], bands: dict[str, Band], widths: dict[str, int], config: GPT2Config, number: str
) -> Iterator[Band]:
    """Two bands for each product, side by side; products of the same rows share their columns.

    number: a formula for the number of a dot product.
    """
    table, seen = "Dot products: a column for each token", set()
    for product in products:
        if product.column not in seen:
            seen.add(product.column)
            source = bands[product.rows]
            yield Band(
                name=product.column,
                title=f"{source.title}, upright",
                about=f"Each row of {source.name} as a column, because two columns are multiplied fastest.",
                shape=(math.prod(size(dimension, config) for dimension in source.shape[1:]), "token"),
                formula=f'IF({{position}}<0,"",TRANSPOSE({{{source.name}}}))',
                per="upright",
                table=table,
                beside=not table,
                apart=True,
            )
            table = ""
        dot = f"SUMPRODUCT({{{product.column}[:, token]}},INDEX({{{product.weight}}},0,{number}))"
        yield Band(
            name=product.name,
            title=f"{bands[product.name.removesuffix('.product')].title}: products",
            about=f"{product.column}, multiplied number by number with each column of {product.weight} and summed.",
            shape=(widths[product.weight], "token"),
            formula=f'IF({{position}}<0,"",{dot})',
            per="filled",
            beside=True,
            apart=True,
        )


def helper_values(
    products: tuple[Product, ...], values: dict[str, NDArray[np.float64]], weight: "Columns"
) -> dict[str, NDArray[np.float64]]:
    """What the helper bands show: for each, a column for each token in use."""
    found: dict[str, NDArray[np.float64]] = {}
    for product in products:
        if product.rows in values:
            rows = values[product.rows].reshape(len(values[product.rows]), -1)
            found[product.column] = rows.T
            found[product.name] = (rows @ weight(product.weight)).T
    return found


@dataclass(frozen=True)
class Columns:
    """A weight, or a slice of one, by name, as float64."""

    tensors: Tensors
    of: dict[str, tuple[str, int, int]]  # by name: the tensor, and its columns from one up to another

    def __call__(self, name: str) -> NDArray[np.float64]:
        """All of its rows."""
        tensor, first, end = self.of[name]
        return self.tensors.tensor(tensor)[:, first:end].astype(np.float64)
