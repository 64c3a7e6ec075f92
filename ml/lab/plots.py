"""Plots for reports, where matplotlib is installed (`pip install flockchain[lab]`); a report is whole without them."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

Bars = Mapping[str, tuple[float, float]]
"""Name -> (value, upper bound)."""


def is_available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def plot_bars(path: Path, series: Mapping[str, Bars], *, label: str, most: float | None = None) -> list[Path]:
    """One panel per series, a bar per name with a mark at its upper bound; the file written, or none."""
    if not is_available() or not series:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    longest = max(len(bars) for bars in series.values())
    figure, axes = pyplot.subplots(1, len(series), figsize=(5 * len(series), 1 + 0.25 * longest), squeeze=False)
    for axis, (title, bars) in zip(axes[0], series.items(), strict=True):
        names = list(bars)[::-1]
        axis.barh(names, [bars[name][0] for name in names], color="#4477aa")
        axis.plot([bars[name][1] for name in names], names, "|", color="black")
        axis.set_title(title)
        axis.set_xlabel(f"{label}; |: 95 % upper bound")
        if most is not None:
            axis.set_xlim(0, most)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return [path]


def plot_lines(path: Path, series: Mapping[str, Mapping[float, float]], *, x_label: str, y_label: str) -> list[Path]:
    """One line per series over the same axis."""
    if not is_available() or not series:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5))
    for name, points in series.items():
        axis.plot(list(points), list(points.values()), marker="o", label=name)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return [path]
