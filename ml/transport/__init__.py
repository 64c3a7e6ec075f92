"""Transport grids: which int8 updates a trainer sends, and in how few bytes they travel.

A grid is a part of the update's own int8 grid, coarser or sparser. `project` brings a move onto it and loses something;
`pack` and `unpack` lose nothing. So what arrives is an update like any other: the same file, root, aggregation and
checks. What a projection left over stays with the trainer and goes into its next move (error feedback: Seide et al.,
"1-Bit Stochastic Gradient Descent", Interspeech 2014; Karimireddy et al., arXiv:1901.09847), or is dropped when the
next base is not the expected one, as `ml.train` does.

Each sibling file is one grid, a frozen dataclass of its options.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ml.adapter import Update
from ml.canonical import Array
from ml.spec import AdapterSpec


class Grid(Protocol):
    """One way to travel."""

    def project(self, steps: Array) -> Array:
        """int8 (n,) on this grid near float64 `steps` (n,) in update steps: halves to even, saturated, no -128."""
        ...

    def pack(self, values: Array) -> bytes:
        """int8 (n,) on this grid as bytes. Equal values, equal bytes."""
        ...

    def unpack(self, data: bytes, count: int) -> Array:
        """The int8 (count,) that were packed. Raises ValueError for bytes that `pack` would not have written."""
        ...


@dataclass(frozen=True)
class Parcel:
    """What a trainer has after projecting one round's move."""

    update: Update
    data: bytes
    """What travels."""
    residual: dict[str, Array]
    """float64, in real values: what was left over."""


def send(
    grid: Grid, move: Mapping[str, Array], spec: AdapterSpec, residual: Mapping[str, Array] | None = None
) -> Parcel:
    """Project a move of B, in real values by module, and what the last one left over. Raises ValueError for NaN."""
    step = 2.0**spec.update_step_log2
    wanted = {m: np.asarray(move[m], np.float64) + (0 if residual is None else residual[m]) for m in spec.modules}
    flat = np.concatenate([wanted[module].ravel() for module in spec.modules])
    if not np.isfinite(flat).all():
        raise ValueError("the move is not finite: lower the learning rate")
    values = grid.project(flat / step)
    update = split(values, spec)
    rest = {module: wanted[module] - update[module] * step for module in spec.modules}
    return Parcel(update, grid.pack(values), rest)


def receive(grid: Grid, data: bytes, spec: AdapterSpec) -> Update:
    """The update that `send` made. Raises ValueError for other bytes."""
    return split(grid.unpack(data, sum(out_features * spec.rank for _, out_features, _ in spec.shapes)), spec)


def split(values: Array, spec: AdapterSpec) -> Update:
    """A flat int8 vector as an update, modules in the order of their paths."""
    update, at = dict[str, Any](), 0
    for module, out_features, _ in spec.shapes:
        size = out_features * spec.rank
        update[module] = values[at : at + size].reshape(out_features, spec.rank)
        at += size
    assert at == values.size
    return update


def round_to(steps: Array, limit: int) -> Array:
    """int8 nearest to float64 steps: halves to even, saturated at +-limit."""
    return np.clip(np.rint(steps), -limit, limit).astype(np.int8)
