"""How a matrix product becomes cells: as one MMULT a row, or as a dot product a cell, for programs that are faster so.

Templates say {a band @ a weight}: the token's row of the band is multiplied. As dot products it takes two helper
bands: the row transposed, a column for each token, and under each token a column of SUMPRODUCTs, which the row
then shows lying down. LibreOffice 7.4 multiplies two columns 2 to 5 times faster than MMULT does, and a column of
formulas alike on all cores.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.band import Band
from xlgpt.compiler.references import Product, Slip, parse
from xlgpt.compiler.template import Stage, size, weights
from xlgpt.model.config import GPT2Config
from xlgpt.model.reference import Tensors

PRODUCT = ".product"  # what the name of a column of dot products adds to that of the band that shows them
CHOICES = ("auto", "mmult", "sumproduct")
# LibreOffice 7.4 calculates no formula with MATCH in threads. In threads, rows that wait for a token of the row above
# would be a circle to it (Err:522).
UNTHREADED = "{number}*MATCH({number},{number},0)"


@dataclass(frozen=True)
class DotProducts:
    """A matrix product as dot products, by names: of a band's rows, transposed in `column`, with a weight's columns."""

    name: str
    column: str
    rows: str
    weight: str
    written: str  # what the formula has in its place


def dot_products(
    stages: list[Stage], config: GPT2Config, writes_on: bool
) -> tuple[list[Stage], tuple[DotProducts, ...]]:
    """The stages with dot products in place of matrix products, and what their helper bands hold.

    writes_on: whether a row may have to wait for the token that the row above it chooses.
    """
    bands = {band.name: band for stage in stages for band in stage.bands}
    widths = {weight.name: weight.shape[-1] for weight in weights(config)}
    for stage in stages:
        of_weights = (part for part in stage.slices if not part.rows)
        widths |= {part.name: size(part.columns[1], config) - size(part.columns[0], config) for part in of_weights}
    number = UNTHREADED if writes_on else "{number}"
    changed, found = [], []
    for stage in stages:
        products = list(_products(stage, bands, widths))
        helpers = list(_helpers(products, bands, widths, config, number)) if products else []
        kept = tuple(_rewritten(band, products) for band in stage.bands)
        changed.append(replace(stage, bands=(*kept, *helpers)))
        found += products
    return changed, tuple(found)


def _products(stage: Stage, bands: dict[str, Band], widths: dict[str, int]) -> Iterator[DotProducts]:
    """The products of a token's row with a weight, in a stage's formulas."""
    for band in stage.bands:
        for i, written in enumerate(_of_a_row(band)):
            rows, weight = (
                next((scope + name for scope in ("", *stage.scope) if scope + name in known), "")
                for name, known in ((written.left.written, bands), (written.right.written, widths))
            )
            if rows and weight and bands[rows].rows == "token":
                name = band.name + PRODUCT + (str(i + 1) if i else "")
                yield DotProducts(name, f"{rows}.column", rows, weight, f"{{{written.written}}}")


def _of_a_row(band: Band) -> list[Product]:
    """The products that a band with a formula for each token's row asks for, each once. Slips show when compiled."""
    if band.per != "row" or band.rows != "token" or "@" not in band.formula:
        return []
    try:
        return list(dict.fromkeys(part for part in parse(band.formula) if isinstance(part, Product)))
    except Slip:
        return []


def product_of(helper: str) -> str:
    """The band that a helper band of dot products belongs to."""
    return helper.rpartition(PRODUCT)[0]


def _rewritten(band: Band, products: list[DotProducts]) -> Band:
    formula = band.formula
    for product in products:
        if product_of(product.name) == band.name:
            formula = formula.replace(product.written, f"TRANSPOSE({{{product.name}[:, row]}})")
    return replace(band, formula=formula)


def _helpers(
    products: list[DotProducts], bands: dict[str, Band], widths: dict[str, int], config: GPT2Config, number: str
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
                title=f"{source.title}, transposed",
                about=f"Each row of {source.name} as a column, because two columns are multiplied fastest.",
                shape=(math.prod(size(dimension, config) for dimension in source.shape[1:]), "token"),
                formula=f'IF({{position}}<0,"",TRANSPOSE({{{source.name}}}))',
                per="transposed",
                table=table,
            )
            table = ""
        dot = f"SUMPRODUCT({{{product.column}[:, column]}},INDEX({{{product.weight}}},0,{number}))"
        yield Band(
            name=product.name,
            title=f"{bands[product_of(product.name)].title}: products",
            about=f"{product.column}, multiplied number by number with each column of {product.weight} and summed.",
            shape=(widths[product.weight], "token"),
            formula=f'IF({{label}}<0,"",{dot})',  # shared, so it refers to no other sheet ([MS-XLS] 2.5.198.118)
            per="dot",
        )


def helper_values(
    products: tuple[DotProducts, ...], values: dict[str, NDArray[np.float64]], weight: "Columns"
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
