"""Multi-Krum: the mean of the n - f updates with the best Krum scores.

Blanchard et al., arXiv:1703.02757, section 5, which leaves the number kept open: all but the f that may be malicious,
as most libraries do. n >= 2f + 3; a malicious update with a good score stays in the mean.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ml.adapter import Array
from ml.aggregate import BLOCK_VALUES, Aggregate, combine_weighted, keep_only
from ml.aggregate.krum import compute_scores, count_tolerated
from ml.distances import compute_distances2, find_nearest
from ml.spec import AdapterSpec

RULE: Any = sys.modules[__name__]


def aggregate(
    updates: Mapping[str, Mapping[str, Any]],
    spec: AdapterSpec,
    *,
    norm_cap: int = 0,
    block: int = BLOCK_VALUES,
    malicious: int | None = None,
) -> Aggregate:
    """Updates by root (hex). `malicious` is f; by default the most that n allows. Ties go to the lowest root."""
    distances2 = compute_distances2(updates, spec)
    tolerated = count_tolerated(len(distances2), malicious)
    kept = find_nearest(compute_scores(distances2, tolerated), len(distances2) - tolerated)
    return keep_only(RULE, updates, kept, block)


def combine_block(blocks: Array, coefficients_ppm: Sequence[int]) -> Array:
    """int8 (n, values) -> int64 (values,)."""
    return combine_weighted(blocks, coefficients_ppm)
