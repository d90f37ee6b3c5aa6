"""What a workbook brings along to fine-tune it with: adapters, by name, and their numbers as cells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.interp.vectors_and_features import own_names
from xlgpt.model.adapter import MODULES, Adapter, read_adapter
from xlgpt.model.checkpoint import Model
from xlgpt.model.notation import shortest

Values = NDArray[Any]


@dataclass(frozen=True)
class Rank:
    """One column of A and one row of B, for a matrix: what is read [in], and what is written then [out]."""

    matrix: str
    adapter: str
    scaling: float
    reads: Values
    writes: Values


def find_adapters(model: Model, asked: Sequence[Path], sheets: tuple[str, ...]) -> tuple[Adapter, ...]:
    """Those that come with the model, and those that are asked for, no two of one name. Raises BadAdapter."""
    if "adapters" not in sheets:
        return ()
    found = [read_adapter(folder, model.config) for folder in (*model.companions.adapters, *asked)]
    names = own_names([adapter.name for adapter in found])
    return tuple(replace(adapter, name=name) for adapter, name in zip(found, names, strict=True))


def adapted(adapters: Sequence[Adapter], n_layer: int) -> tuple[tuple[str, int], ...]:
    """Every matrix that one of them changes, in the model's order, and how many ranks there are for it."""
    names = (f"h.{layer}.{module}" for layer in range(n_layer) for module in MODULES)
    counted = ((name, sum(a.matrices[name].rank for a in adapters if name in a.matrices)) for name in names)
    return tuple((name, count) for name, count in counted if count)


def adapter_cells(adapters: Sequence[Adapter], n_layer: int) -> dict[str, Any]:
    """What the sheet Adapters holds of them, by band: for each kind of matrix a row a rank, block after block."""
    if not adapters:
        return {}
    cells: dict[str, Any] = {"adapter.name": adapters[0].name, "adapter.names": _column(a.name for a in adapters)}
    for module in MODULES:
        ranks = [rank for layer in range(n_layer) for a in adapters for rank in _ranks(a, f"h.{layer}.{module}")]
        if not ranks:
            continue
        columns: dict[str, Values] = {
            "matrix": _column(rank.matrix for rank in ranks),
            "of": _column(rank.adapter for rank in ranks),
            "scaling": _column(rank.scaling for rank in ranks),
            "lora_A": np.array([rank.reads for rank in ranks]).astype(object),
            "lora_B": np.array([rank.writes for rank in ranks]).astype(object),
        }
        cells |= {f"{module}.{name}": column for name, column in columns.items()}
    return cells


def _ranks(adapter: Adapter, matrix: str) -> Iterator[Rank]:
    """The ranks of an adapter for a matrix, each number the shortest decimal of its float32, as weights are."""
    if matrix in adapter.matrices:
        part = adapter.matrices[matrix]
        reads, writes = (shortest(numbers.astype(np.float32)) for numbers in (part.A.T, part.B))
        for read, written in zip(reads, writes, strict=True):
            yield Rank(matrix, adapter.name, part.scaling, read, written)


def _column(values: Any) -> Values:
    return np.array([[value] for value in values], dtype=object)
