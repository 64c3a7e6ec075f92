"""`flockchain lab`: what its tables show in 80 columns."""

from pathlib import Path

import pytest

from flockchain.cli.common import show_rows
from ml.lab.settings import EXPERIMENTS, list_experiments, read_settings
from tests.support.command import Shell


def test_the_list_of_experiments_is_whole_in_80_columns(shell: Shell) -> None:
    """A long title takes a second line; names, seeds and dates are never cut."""
    ran = shell("lab", "list")
    assert ran.code == 0
    head, *lines = ran.out.splitlines()
    assert head.split() == ["name", "title", "seeds", "measured"]
    assert [line.split()[0] for line in lines if line[0] != " "] == list_experiments()
    words = ran.out.split()
    for name in list_experiments():
        assert set(read_settings(name).title.split()) <= set(words)
    assert "…" not in ran.out


def test_only_the_folding_column_of_a_wide_table_takes_more_lines(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "n" * 30, "title": "a title of many words " * 4, "seeds": 3, "measured": "2026-11-21"}
    show_rows([row], list(row), False, folding="title")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[0] == row["name"]
    assert lines[1].endswith("2026-11-21")
    assert " ".join(" ".join(lines[1:]).split()).count("words") == 4


def test_without_a_folding_column_a_wide_table_is_cut(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "n" * 50, "title": "t" * 50}], ["name", "title"], False)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_option_that_does_not_fit_is_refused_before_anything_runs(shell: Shell, tmp_path: Path) -> None:
    """A slip of the pen in one's own copy of an experiment costs no hour of training."""
    own = tmp_path / "own.toml"
    text = (EXPERIMENTS / "domains.toml").read_text(encoding="utf-8")
    own.write_text(text.replace('rule = "mean" }', 'rule = "mean", wieghts_ppm = 1 }'), encoding="utf-8")
    ran = shell("lab", "run", str(own))
    assert ran.code == 1
    assert "arm fedavg has wieghts_ppm: choose from name, rule" in " ".join(ran.err.split())
