"""Figures over seeds and Markdown tables of them, for all experiments."""

from collections.abc import Iterable, Mapping, Sequence

from ml.lab import Json
from ml.lab.statistics import compute_deviation, compute_mean, compute_rate_bound, compute_upper_bound


def make_figure(by_seed: Mapping[int, float], *, trials: int = 0) -> Json:
    """Mean, deviation and 95 % upper bound over seeds.

    With `trials` (prompts a seed) the values are rates, and the bound is at least the exact one of all prompts
    together: none of 60 in three seeds has no spread, and is still no proof of nought.
    """
    values = list(by_seed.values())
    upper = compute_upper_bound(values)
    if trials and upper is not None:
        hits = round(sum(values) * trials)
        upper = min(1.0, max(upper, compute_rate_bound(hits, trials * len(values))))
    return {
        "mean": compute_mean(values),
        "deviation": compute_deviation(values),
        "upper": upper,
        "n": len(values),
        "by_seed": {str(seed): value for seed, value in sorted(by_seed.items())},
    }


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def show_rate(figure: Mapping[str, float | None]) -> str:
    """`.92 (1.00)`: mean and upper bound."""
    mean, upper = figure["mean"], figure["upper"]
    assert mean is not None
    return show(mean) + (f" ({show(upper)})" if upper is not None else "")


def show(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def show_seeds(figure: Json) -> str:
    return " ".join(show(value) for _, value in sorted(figure["by_seed"].items(), key=lambda item: int(item[0])))
