"""Min-max: as far from the honest mean as the two honest updates that are farthest apart are from each other.

Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021, section IV-C.
Knows: the round's honest updates.
Formula: u = mean + gamma p, gamma the largest with max_i |u - g_i| <= max_ij |g_i - g_j|, found by bisection; p is
-std, -mean or -sign(mean). Distances on BA, in the integers that the rules themselves compare.
Made for: rules that choose or weigh by distance (Krum, Bulyan, mixing): u is nobody's outlier.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ml.adapter import Update
from ml.attacks import SCALE_UNIT, AttackContext, to_grid
from ml.canonical import Array
from ml.distances import compute_distances2
from ml.moments import compute_mean, compute_std
from ml.norms import inner, norm2
from ml.spec import UPDATE_LIMIT, AdapterSpec

KIND, SEES_ROUND = "update", True
LARGEST_FACTOR = 2 * UPDATE_LIMIT * SCALE_UNIT
"""No coordinate that moves by a step or more per unit is inside +-127 beyond it."""


def craft(context: AttackContext, *, direction: str = "std") -> Update:
    """`direction`: std, mean or sign. Raises ValueError where no honest update is seen."""
    bound = max(map(max, compute_distances2(context.honest_updates, context.spec))) if context.seen else 0
    return push(context, direction, lambda distances2: max(distances2) <= bound)


def push(context: AttackContext, direction: str, is_within: Callable[[list[int]], bool]) -> Update:
    """mean + gamma p for the largest gamma whose squared distances to the honest updates are within; at least 0."""
    seen = context.seen
    mean, away = compute_mean(seen), compute_direction(seen, direction)
    norms2 = [norm2(update, context.spec) for update in seen]

    def move(factor: int) -> Update:
        return to_grid({module: mean[module] + factor / SCALE_UNIT * away[module] for module in mean})

    def fits(factor: int) -> bool:
        return is_within(measure_distances2(move(factor), seen, norms2, context.spec))

    # The distances are convex in gamma, so what fits is one interval from 0.
    low, high = 0, SCALE_UNIT
    while high < LARGEST_FACTOR and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return move(low)


def measure_distances2(
    update: Update, others: Sequence[Mapping[str, Any]], norms2: Sequence[int], spec: AdapterSpec
) -> list[int]:
    """Squared distances to the others, whose squared norms are known."""
    own = norm2(update, spec)
    return [own + theirs - 2 * inner(update, other, spec) for other, theirs in zip(others, norms2, strict=True)]


def compute_direction(seen: Sequence[Mapping[str, Any]], direction: str) -> dict[str, Array]:
    """The way to push, by module; its length does not matter. Raises ValueError for an unknown name."""
    if direction == "std":
        return {module: -values for module, values in compute_std(seen).items()}
    if direction == "mean":
        return {module: -values for module, values in compute_mean(seen).items()}
    if direction == "sign":
        return {module: -np.sign(values) for module, values in compute_mean(seen).items()}
    raise ValueError(f"unknown direction {direction!r}; known: mean, sign, std")
