"""The plots of reports: one file, every name once, and nothing at all without matplotlib."""

from pathlib import Path

import pytest

from ml.lab.backdoor_report import sort_by_kind
from ml.lab.plots import is_available, plot_bars, plot_lines

needs_matplotlib = pytest.mark.skipif(not is_available(), reason="matplotlib is in the extra `lab`")
ARMS = {"clean": (0.0, None), "krum": (0.9, 1.0), "flock": (0.1, 0.2)}


def test_every_arm_is_of_one_kind_and_the_papers_vote_is_not_ours() -> None:
    kinds = sort_by_kind(["base", "clean", "attackers", "krum", "flock_paper", "flock", "flock_liars"])
    assert list(kinds.values()) == [["base", "clean", "attackers"], ["krum", "flock_paper"], ["flock", "flock_liars"]]


@needs_matplotlib
def test_panels_with_different_bars_share_one_column_of_names(tmp_path: Path) -> None:
    series = {"all": ARMS, "few": {"krum": (0.5, 0.6)}, "one seed": {"flock": (0.5, None)}, "fourth": ARMS}
    (path,) = plot_bars(tmp_path / "bars.png", series, kinds=sort_by_kind(ARMS), label="rate", most=1.0)
    assert path.read_bytes().startswith(b"\x89PNG")


@needs_matplotlib
def test_more_lines_than_colours(tmp_path: Path) -> None:
    lines = {f"arm{at}": {1.0: at / 10, 2.0: at / 20} for at in range(12)}
    (path,) = plot_lines(tmp_path / "lines.png", {"a": lines}, x_label="round", y_label="rate", bold="arm3")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(is_available(), reason="matplotlib is there")
def test_without_matplotlib_there_is_no_plot(tmp_path: Path) -> None:
    assert plot_bars(tmp_path / "bars.png", {"all": ARMS}, kinds=sort_by_kind(ARMS), label="rate") == []
    assert plot_lines(tmp_path / "l.png", {"a": {"b": {1.0: 1.0}}}, x_label="", y_label="") == []
    assert list(tmp_path.iterdir()) == []
