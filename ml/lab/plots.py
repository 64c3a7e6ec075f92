"""Plots for reports, where matplotlib is installed (`pip install flockchain[lab]`); a report is whole without them."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Bars = Mapping[str, tuple[float, float | None]]
"""Name -> (value, upper bound; None where one seed bounds nothing)."""
Lines = Mapping[str, Mapping[float, float]]
"""Name -> value by place on the axis."""
BARS = ("#999999", "#4477aa", "#ee6677")
"""By kind, in their order: grey, blue and red of Paul Tol's "bright" scheme, which the colour-blind tell apart."""
LINES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000")
"""The same scheme and black; beyond these, the dashes change."""
DASHES, MARKERS = ("-", "--", ":"), "osD^vPX*"
PANELS_PER_ROW = 3


def is_available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def plot_bars(
    path: Path, series: Mapping[str, Bars], *, kinds: Mapping[str, Sequence[str]], label: str, most: float | None = None
) -> list[Path]:
    """One panel per series, a bar per name with its value beside it and a mark at its upper bound.

    `kinds` holds every name under what it is, at most three kinds; each has a colour. Returns the file written, or
    none without matplotlib.
    """
    if not is_available() or not series:
        return []
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(name for bars in series.values() for name in bars))
    colours = dict(zip(kinds, BARS, strict=False))
    colour_of = {name: colours[kind] for kind, held in kinds.items() for name in held}
    figure, axes = _open(len(series), panel=(4.2, 1 + 0.26 * len(names)))
    for axis, (title, bars) in zip(axes, series.items(), strict=True):
        _draw_bars(axis, names, bars, colour_of)
        axis.set_title(title)
        axis.set_xlabel(label, fontsize="small")
        if most is not None:
            axis.set_xlim(0, 1.14 * most)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    handles: list[Any] = [Patch(color=colour, label=kind) for kind, colour in colours.items() if kinds[kind]]
    if any(upper is not None for bars in series.values() for _, upper in bars.values()):
        handles.append(Line2D([], [], marker="|", color="black", linestyle="none", label="95 % upper bound"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return _save(figure, path)


def _draw_bars(axis: Any, names: Sequence[str], bars: Bars, colour_of: Mapping[str, str]) -> None:
    """Every panel has a row for each name, so that one column of names serves them all."""
    for at, name in enumerate(names):
        if name not in bars:
            continue
        value, upper = bars[name]
        axis.barh([at], [value], color=colour_of[name])
        if upper is not None:
            axis.plot([upper], [at], "|", color="black")
        behind = max(value, 0.0, upper or 0.0)
        axis.annotate(f"{value:.2f}", (behind, at), (4, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_yticks(range(len(names)), names)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.margins(x=0.14)


def plot_lines(
    path: Path, series: Mapping[str, Lines], *, x_label: str, y_label: str, bold: str = "", **limits: Any
) -> list[Path]:
    """One panel per series, one line per name, the one called `bold` thicker and above the others.

    A name's line looks alike in every panel. `limits` go to the axes. Returns the file written, or none without
    matplotlib.
    """
    if not is_available() or not series:
        return []
    figure, axes = _open(len(series), panel=(5.2, 3.8))
    names = list(dict.fromkeys(name for lines in series.values() for name in lines))
    drawn: dict[str, Any] = {}
    for axis, (title, lines) in zip(axes, series.items(), strict=True):
        for name, points in lines.items():
            how = _style(names.index(name)) | ({"linewidth": 3.0, "zorder": 3} if name == bold else {})
            (drawn[name],) = axis.plot(list(points), list(points.values()), **how)
        axis.set(title=title, xlabel=x_label, ylabel=y_label, **limits)
        axis.set_xticks(sorted({x for points in lines.values() for x in points}))
        axis.grid(alpha=0.3)
    figure.legend([drawn[name] for name in names], names, loc="outside right upper", frameon=False, fontsize="small")
    return _save(figure, path)


def _style(at: int) -> dict[str, Any]:
    """Markers are hollow, so that lines that lie on each other are all seen."""
    return {
        "color": LINES[at % len(LINES)],
        "linestyle": DASHES[at // len(LINES) % len(DASHES)],
        "marker": MARKERS[at % len(MARKERS)],
        "markerfacecolor": "none",
        "markersize": 5 + 1.5 * (at % 4),
    }


def _open(panels: int, panel: tuple[float, float]) -> tuple[Any, Sequence[Any]]:
    """A figure with one axis per panel, at most three in a row, names written once a row."""
    from matplotlib.figure import Figure

    columns = min(panels, PANELS_PER_ROW)
    rows = -(-panels // columns)
    figure = Figure(figsize=(1.5 + panel[0] * columns, 0.5 + panel[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axis in axes[panels:]:
        axis.set_visible(False)
    return figure, axes[:panels]


def _save(figure: Any, path: Path) -> list[Path]:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return [path]
