"""Distances between updates, taken on the effective change B A, exact: one Gram matrix serves every distance rule.

    d2_ij = |B_i A - B_j A|^2 = <i, i> + <j, j> - 2 <i, j>

Python integers in squared steps (ml/norms.py). Nothing is cancelled in floats: `torch.cdist` on clustered points is
off by factors, these differences are exact.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml.norms import inner_products
from ml.spec import AdapterSpec

Matrix = list[list[int]]


def compute_distances2(updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec) -> Matrix:
    """Squared distances (n, n) between the updates in the sorted order of their roots. Raises ValueError for none."""
    ordered = [updates[root] for root in sorted(updates)]
    if not ordered:
        raise ValueError("nothing to aggregate: no valid update")
    gram, count = inner_products(ordered, spec), len(ordered)
    return [[gram[i][i] + gram[j][j] - 2 * gram[i][j] for j in range(count)] for i in range(count)]


def find_nearest(distances2: Sequence[int], keep: int) -> list[int]:
    """Indexes of the `keep` smallest values, nearest first; ties to the lowest index."""
    assert 0 <= keep <= len(distances2)
    return sorted(range(len(distances2)), key=lambda index: (distances2[index], index))[:keep]
