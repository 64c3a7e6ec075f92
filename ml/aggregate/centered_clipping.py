"""Centered clipping: from a first guess, move by the mean of the differences, each clipped to a radius.

    v <- v + mean_i((x_i - v) * min(1, tau / |x_i - v|)),   v_0 = 0, tau^2 = the lower median of |x_i|^2

Karimireddy et al., "Learning from History for Byzantine Robust Optimization", arXiv:2012.10333. Updates are changes
already, so "no change" is the guess that history offers. The paper leaves tau open; the median of the norms needs no
tuning. Influence of one input per step: tau / n; breakdown point 1/2 as far as the guess is good. After one step it is
the norm-clipped mean. The point is held as coefficients, in parts of n * 10^6, so that distances stay exact; those of
the unclipped exceed 10^6 where others are clipped, their sum never exceeds n * 10^6.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from ml.aggregate import PPM
from ml.aggregate.mean_norm_clip import combine_block as combine_clipped_mean
from ml.norms import inner
from ml.spec import AdapterSpec

combine_block = combine_clipped_mean
STEPS = 3


def find_coefficients(updates: Mapping[str, Mapping[str, Any]], spec: AdapterSpec, *, norm_cap: int = 0) -> list[int]:
    """`norm_cap` bounds tau^2; 0 is no cap."""
    ordered = [updates[root] for root in sorted(updates)]
    gram = [[inner(one, other, spec) for other in ordered] for one in ordered]
    return compute_coefficients(gram, norm_cap)


def compute_coefficients(gram: Sequence[Sequence[int]], norm_cap: int = 0) -> list[int]:
    """w_i in ppm with v = sum(w_i x_i) / (n * 10^6), from inner products of BA; `norm_cap` of 0 is no cap."""
    count = len(gram)
    tau2 = sorted(gram[i][i] for i in range(count))[(count - 1) // 2]
    if norm_cap:
        tau2 = min(tau2, norm_cap)
    weights = [0] * count
    for _ in range(STEPS):
        clips = [_clip_ppm(tau2, _distance2(gram, weights, i), count) for i in range(count)]
        left = count * PPM - sum(clips)  # what remains of v, in parts of n * 10^6
        weights = [w * left // (count * PPM) + clip for w, clip in zip(weights, clips, strict=True)]
    return weights


def _distance2(gram: Sequence[Sequence[int]], weights: Sequence[int], i: int) -> int:
    """|x_i - v|^2 * (n * 10^6)^2, exact."""
    unit = len(gram) * PPM
    cross = sum(w * value for w, value in zip(weights, gram[i], strict=True))
    own = sum(wj * wk * gram[j][k] for j, wj in enumerate(weights) if wj for k, wk in enumerate(weights) if wk)
    return unit * unit * gram[i][i] - 2 * unit * cross + own


def _clip_ppm(tau2: int, scaled_distance2: int, count: int) -> int:
    """min(1, tau / distance) in ppm, rounded down."""
    unit = count * PPM
    if scaled_distance2 <= tau2 * unit * unit:
        return PPM
    return min(PPM, isqrt(tau2 * unit * unit * PPM * PPM // scaled_distance2))
