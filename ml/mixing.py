"""Nearest-neighbour mixing: before a rule, each update becomes the mean of itself and its n - f - 1 nearest neighbours.

Allouah et al., "Fixing by Mixing", arXiv:2302.01772: it lets coordinate rules and Krum reach the best possible error
when honest data differ. The mean is rounded half to even onto the updates' own int8 grid, so any rule can follow; the
rounding moves a coordinate by at most half a step. A chunk of the result needs the neighbours of whole updates: a task
on the chain, whose results can be recomputed chunk by chunk, does not offer it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ml.adapter import Update
from ml.aggregate import divide_half_even
from ml.distances import compute_distances2, find_nearest
from ml.spec import AdapterSpec


def mix_neighbours(
    updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, malicious: int | None = None
) -> dict[str, Update]:
    """Mixed updates by root (hex). `malicious` is f; by default the largest minority. Raises ValueError for none."""
    distances2 = compute_distances2(updates, spec)
    roots = sorted(updates)
    most = (len(roots) - 1) // 2
    if malicious is not None and not 0 <= malicious <= most:
        raise ValueError(f"mixing withstands at most {most} of {len(roots)} inputs, not {malicious}: n > 2f")
    keep = len(roots) - (most if malicious is None else malicious)
    mixed: dict[str, Update] = {}
    for root, row in zip(roots, distances2, strict=True):
        near = [updates[roots[index]] for index in sorted(find_nearest(row, keep))]
        mixed[root] = {
            module: divide_half_even(
                np.sum([np.asarray(update[module]) for update in near], axis=0, dtype=np.int64), keep
            ).astype(np.int8)
            for module in sorted(near[0])
        }
    return mixed
