"""`make sim` keeps to its two hours, and says of every part how it ended."""

from pathlib import Path

import pytest

from .long_forms import PARTS, Part, main, run_all, sum_budget_min

TWO_HOURS_MIN = 120


def test_budget_is_two_hours(capsys: pytest.CaptureFixture[str]) -> None:
    """The parts' limits add up to at most two hours, and `--list` prints them with their sum."""
    assert sum_budget_min(PARTS) <= TWO_HOURS_MIN
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert all(part.name in said for part in PARTS)
    assert f"budget: {sum_budget_min(PARTS) // 60} h" in said


def test_failure_holds_up_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part that fails and one that outlasts its limit are reported with their command; the others run."""
    good = Part("good", ("platform",), 1)
    bad = Part("bad", ("this_module_does_not_exist",), 1)
    endless = Part("endless", ("http.server", "0", "--bind", "127.0.0.1"), 0, cores=1)
    ended = {ran.name: ran.exit_code for ran in run_all((bad, endless, good), tmp_path)}
    assert ended == {"good": 0, "bad": 1, "endless": 124}
    said = capsys.readouterr().out
    assert "FAILED, exit 1" in said
    assert "python -m this_module_does_not_exist" in said
    assert "TOO LONG" in said
