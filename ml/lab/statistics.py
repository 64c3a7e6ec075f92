"""Bounds for few seeds: the seed is the unit; a rate of nought in some prompts is not a rate of nought."""

import math
from collections.abc import Sequence

CONFIDENCE = 0.95
T_95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
"""One-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom; beyond, the normal one serves."""
Z_95 = 1.645


def compute_mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def compute_deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    mean = compute_mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def compute_upper_bound(values: Sequence[float]) -> float | None:
    """One-sided 95 % upper bound of the mean over seeds (Student's t); None for a single seed, which bounds nothing."""
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    quantile = T_95[freedom - 1] if freedom <= len(T_95) else Z_95
    return compute_mean(values) + quantile * compute_deviation(values) / math.sqrt(len(values))


def compute_rate_bound(successes: int, trials: int) -> float:
    """Exact one-sided 95 % upper bound of a binomial rate (Clopper and Pearson, Biometrika 26, 1934)."""
    assert 0 <= successes <= trials > 0
    if successes == trials:
        return 1.0
    low, high = successes / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _compute_tail(successes, trials, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _compute_tail(successes: int, trials: int, rate: float) -> float:
    """P(X <= successes)."""
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(rate)
        + (trials - k) * math.log1p(-rate)
        for k in range(successes + 1)
        if 0 < rate < 1
    )
    return math.fsum(math.exp(value) for value in logs)
