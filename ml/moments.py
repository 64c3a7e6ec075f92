"""Mean and spread of updates, coordinate by coordinate: what attackers compute of the honest ones.

Sums are taken in int64, so the order of the updates does not matter; each result is rounded once to float64.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml.canonical import Array


def compute_mean(updates: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """float64 (out_features, rank) by module, in update steps."""
    return {module: _sum(updates, module, 1) / len(updates) for module in sorted(updates[0])}


def compute_std(updates: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """float64 by module: the standard deviation over the updates themselves (divided by n, not n - 1)."""
    count = len(updates)
    return {
        # n sum(q^2) - (sum q)^2 is an exact integer and never negative.
        module: np.sqrt(count * _sum(updates, module, 2) - _sum(updates, module, 1) ** 2) / count
        for module in sorted(updates[0])
    }


def _sum(updates: Sequence[Mapping[str, Any]], module: str, power: int) -> Array:
    total = np.zeros(np.asarray(updates[0][module]).shape, np.int64)
    for update in updates:
        total += np.asarray(update[module]).astype(np.int64) ** power
    return total
