"""Multi-Krum: the mean of the n - f updates with the best Krum scores.

Blanchard et al., arXiv:1703.02757, section 5, which leaves the number kept open: all but the f that may be malicious,
as most libraries do. n >= 2f + 3; a malicious update with a good score stays in the mean.
"""

from collections.abc import Mapping
from typing import Any

from ml.aggregate import combine_weighted, keep_only
from ml.aggregate.krum import compute_scores, count_tolerated
from ml.distances import compute_distances2, find_nearest
from ml.spec import AdapterSpec

combine_block = combine_weighted


def find_coefficients(
    updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0, malicious: int | None = None
) -> list[int]:
    """`malicious` is f; by default the most that n allows."""
    distances2 = compute_distances2(updates, spec)
    tolerated = count_tolerated(len(distances2), malicious)
    kept = find_nearest(compute_scores(distances2, tolerated), len(distances2) - tolerated)
    return keep_only(kept, len(distances2))
