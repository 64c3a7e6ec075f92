"""Krum: the one update whose n - f - 2 nearest neighbours are nearest.

    score_i = sum of the n - f - 2 smallest d2_ij, j != i;   delta = 2^f' * q_i of the least score

Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017, arXiv:1703.02757; for n >= 2f + 3, which is its
breakdown point. (A widespread library takes n - f - 1 neighbours.) A minority domain keeps 0-3 % of its share.
"""

from collections.abc import Mapping
from typing import Any

from ml.aggregate import combine_weighted, keep_only
from ml.distances import Matrix, compute_distances2, find_nearest
from ml.spec import AdapterSpec

combine_block = combine_weighted


def find_coefficients(
    updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0, malicious: int | None = None
) -> list[int]:
    """`malicious` is f; by default the most that n allows."""
    distances2 = compute_distances2(updates, spec)
    chosen = find_nearest(compute_scores(distances2, count_tolerated(len(distances2), malicious)), 1)
    return keep_only(chosen, len(distances2))


def count_tolerated(count: int, malicious: int | None = None) -> int:
    """f: the given one where n >= 2f + 3 holds, by default the largest such. Raises ValueError beyond it."""
    most = max(0, (count - 3) // 2)
    if malicious is not None and not 0 <= malicious <= most:
        raise ValueError(f"Krum withstands at most {most} of {count} inputs, not {malicious}: n >= 2f + 3")
    return most if malicious is None else malicious


def compute_scores(distances2: Matrix, malicious: int) -> list[int]:
    """Sum of squared distances to the n - f - 2 nearest others, by index."""
    neighbours = max(0, len(distances2) - malicious - 2)
    return [
        sum(sorted(d2 for other, d2 in enumerate(row) if other != index)[:neighbours])
        for index, row in enumerate(distances2)
    ]
