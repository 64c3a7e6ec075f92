"""Bulyan: Krum picks n - 2f updates one after another, then each coordinate is the mean of those nearest its median.

    selected: repeat theta = n - 2f times: take the update of the least Krum score among those left
    delta_j = round_half_even(2^f' * mean of the beta = theta - 2f selected values nearest to their median_j)

El Mhamdi et al., "The Hidden Vulnerability of Distributed Learning in Byzantium", arXiv:1802.07927; n >= 4f + 3, its
breakdown point. Of two windows equally near, the lower one counts; the median of an even number is the lower one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml.aggregate import divide_half_even, keep_only
from ml.aggregate.krum import compute_scores
from ml.canonical import Array
from ml.distances import Matrix, compute_distances2, find_nearest
from ml.spec import GRID_EXTRA_BITS, AdapterSpec


def find_coefficients(
    updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0, malicious: int | None = None
) -> list[int]:
    """`malicious` is f; by default the most that n allows."""
    distances2 = compute_distances2(updates, spec)
    return keep_only(select(distances2, count_tolerated(len(distances2), malicious)), len(distances2))


def count_tolerated(count: int, malicious: int | None = None) -> int:
    """f: the given one where n >= 4f + 3 holds, by default the largest such. Raises ValueError beyond it."""
    most = max(0, (count - 3) // 4)
    if malicious is not None and not 0 <= malicious <= most:
        raise ValueError(f"Bulyan withstands at most {most} of {count} inputs, not {malicious}: n >= 4f + 3")
    return most if malicious is None else malicious


def select(distances2: Matrix, malicious: int) -> set[int]:
    """Indexes of the n - 2f updates that Krum takes one by one, each time among those left."""
    left = list(range(len(distances2)))
    chosen: set[int] = set()
    for _ in range(len(distances2) - 2 * malicious):
        among = [[distances2[i][j] for j in left] for i in left]
        [best] = find_nearest(compute_scores(among, min(malicious, max(0, (len(left) - 3) // 2))), 1)
        chosen.add(left.pop(best))
    return chosen


def combine_block(blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
    """int8 (n, values) and who was selected -> int64 (values,)."""
    assert len(blocks) == len(coefficients_ppm)
    selected = np.sort(blocks[np.array(coefficients_ppm) > 0], axis=0).astype(np.int64)
    theta = len(selected)
    assert theta > 0
    keep = max(1, theta - (len(blocks) - theta))  # theta - 2f, for theta = n - 2f
    median = selected[(theta - 1) // 2]
    spread = np.stack([np.abs(selected[s : s + keep] - median).sum(axis=0) for s in range(theta - keep + 1)])
    start = spread.argmin(axis=0)  # the first of equal ones
    sums = np.concatenate([np.zeros_like(selected[:1]), selected.cumsum(axis=0)])
    columns = np.arange(selected.shape[1])
    total = sums[start + keep, columns] - sums[start, columns]
    return divide_half_even(total << GRID_EXTRA_BITS, keep)
