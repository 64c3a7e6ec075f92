"""Nearest-neighbour mixing: before a rule, each update becomes the mean of itself and its n - f - 1 nearest neighbours.

Allouah et al., "Fixing by Mixing", arXiv:2302.01772: it lets coordinate rules and Krum reach the best possible error
when honest data differ. The mean is rounded half to even onto the updates' own int8 grid, so any rule can follow; the
rounding moves a coordinate by at most half a step. A chunk of the result needs the neighbours of whole updates: a task
on the chain, whose results can be recomputed chunk by chunk, does not offer it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ml.aggregate import divide_half_even
from ml.canonical import Array
from ml.distances import compute_distances2, find_nearest
from ml.spec import AdapterSpec


class Mixed(Mapping[str, Array]):
    """The mean of some updates, int8 with halves to even, each module made when it is asked for."""

    def __init__(self, updates: Sequence[Mapping[str, Any]]) -> None:
        self._updates = updates

    def __getitem__(self, module: str) -> Array:
        total = np.sum([np.asarray(update[module]) for update in self._updates], axis=0, dtype=np.int64)
        return divide_half_even(total, len(self._updates)).astype(np.int8)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._updates[0]))

    def __len__(self) -> int:
        return len(self._updates[0])


def mix_neighbours(
    updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, malicious: int | None = None
) -> dict[str, Mapping[str, Array]]:
    """Mixed updates by root (hex). `malicious` is f; by default the largest minority. Raises ValueError for none."""
    distances2 = compute_distances2(updates, spec)
    roots = sorted(updates)
    most = (len(roots) - 1) // 2
    if malicious is not None and not 0 <= malicious <= most:
        raise ValueError(f"mixing withstands at most {most} of {len(roots)} inputs, not {malicious}: n > 2f")
    keep = len(roots) - (most if malicious is None else malicious)
    return {
        root: Mixed([updates[roots[index]] for index in sorted(find_nearest(row, keep))])
        for root, row in zip(roots, distances2, strict=True)
    }
