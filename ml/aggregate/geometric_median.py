"""Geometric median: the point with the least sum of distances to all updates, by Weiszfeld's iteration in integers.

    w_i <- (1 / |x_i - z|) / sum_j(1 / |x_j - z|),   z = sum_i(w_i * x_i)

Pillutla et al., "Robust Aggregation for Federated Learning", arXiv:1912.13445. Breakdown point 1/2. The point is held
as its weights, so each |x_i - z|^2 = sum_j(w_j d2_ij) - sum_jk(w_j w_k d2_jk) / 2 comes from exact distances, whatever
the adapter's size. No distance counts as less than a thousandth of the median one: smoothing is relative, because an
absolute one (as in a widespread library) makes the rule a mean for vectors as small as LoRA's, and relative to the
median, because the largest distance is the attacker's choice. It begins with the nearer half around the medoid, which
a minority cannot move: from the mean, m of n inputs at a distance D would still pull by (m / (n - m))^64 D at the end.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from ml.aggregate import PPM, combine_weighted
from ml.distances import Matrix, compute_distances2, find_nearest
from ml.spec import AdapterSpec

combine_block = combine_weighted
STEPS = 64
UNIT = 10**12
"""Weights in the iteration are integers in parts of this; it ends in ppm."""
SMOOTHING = 1_000
"""No distance counts as less than the lower median one divided by this."""


def find_coefficients(updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0) -> list[int]:
    """No norm is clipped."""
    return compute_weights(compute_distances2(updates, spec))


def compute_weights(distances2: Matrix) -> list[int]:
    """Weights in ppm, the largest scaled to 10^6; equal ones when all updates are one point."""
    count = len(distances2)
    near = find_nearest(distances2[_find_medoid(distances2)], count // 2 + 1)
    weights = [UNIT if index in near else 0 for index in range(count)]
    for _ in range(STEPS):
        reach = [isqrt(d2) for d2 in _distances2_to_point(distances2, weights)]
        least = max(1, sorted(reach)[(count - 1) // 2] // SMOOTHING)
        inverse = [UNIT * least // max(distance, least) for distance in reach]  # 1 at the smallest, in parts of UNIT
        total = sum(inverse)
        weights = [value * UNIT // total for value in inverse]
    largest = max(weights)
    return [weight * PPM // largest for weight in weights]


def _find_medoid(distances2: Matrix) -> int:
    """The index with the least sum of distances; ties to the lowest."""
    return find_nearest([sum(map(isqrt, row)) for row in distances2], 1)[0]


def _distances2_to_point(distances2: Matrix, weights: Sequence[int]) -> list[int]:
    """|x_i - z|^2 * UNIT^2 for z = sum(w x) / sum(w), rounded down; the unit keeps small distances apart."""
    total = sum(weights)
    rows = [sum(w * d2 for w, d2 in zip(weights, row, strict=True)) for row in distances2]
    spread = sum(w * row for w, row in zip(weights, rows, strict=True))
    return [max(0, (2 * total * row - spread) * UNIT * UNIT // (2 * total * total)) for row in rows]
