"""The engine runs each cell once, keeps what is finished, goes on after an interruption, and says what went wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ml.lab import LabError, Step
from ml.lab.cells import Cell, list_all, read_result
from ml.lab.document import encode_document
from ml.lab.engine import choose_jobs, find_other_commits, run_cells
from ml.lab.settings import list_experiments, merge, read_settings
from ml.lab.statistics import compute_rate_bound, compute_upper_bound
from tests.ml.lab.toy import make_cells
from tests.support.processes import wait_until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "runs.txt"
    path.touch()
    return path


def run(cells: list[Cell], folder: Path, *, jobs: int = 0, **options: object) -> list[Step]:
    steps: list[Step] = []
    run_cells(cells, folder, jobs=jobs, commit="abc", watch=steps.append, **options)  # type: ignore[arg-type]
    return steps


def test_what_is_needed_runs_first_and_each_cell_once(tmp_path: Path, log: Path) -> None:
    cells = make_cells(log, 3, 4)
    steps = run(cells, tmp_path / "cells")
    assert log.read_text().split() == ["draw/3", "draw/4", "add"]
    assert read_result(tmp_path / "cells", cells[0]) == {"number": 7}
    assert [(step.done, step.of, step.name) for step in steps] == [(1, 3, "draw/3"), (2, 3, "draw/4"), (3, 3, "add")]
    assert steps[-1].left_s == 0.0


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, log: Path) -> None:
    """Only the cells that a crash had left without a whole result run again; `fresh` measures all again."""
    cells = make_cells(log, 3, 4)
    run(cells, tmp_path / "cells")
    broken = tmp_path / "cells" / f"{cells[0].needs[1].key[:32]}.json"
    broken.write_text(broken.read_text()[:40])
    assert [step.name for step in run(cells, tmp_path / "cells")] == ["draw/4"]
    assert run(cells, tmp_path / "cells") == []
    assert len(run(cells, tmp_path / "cells", fresh=True)) == 3


def test_other_settings_are_another_cell_and_equal_ones_are_shared(tmp_path: Path, log: Path) -> None:
    cells, more = make_cells(log, 3, 4), make_cells(log, 3, 5)
    assert len(list_all([*cells, *more])) == 5
    run(cells, tmp_path / "cells")
    assert [step.name for step in run(more, tmp_path / "cells")] == ["draw/5", "add"]


def test_a_pool_gives_the_same_results_from_other_processes(tmp_path: Path, log: Path) -> None:
    cells = make_cells(log, 3, 4)
    run(cells, tmp_path / "cells", jobs=1)
    assert read_result(tmp_path / "cells", cells[0]) == {"number": 7}
    drawn = read_result(tmp_path / "cells", cells[0].needs[0])
    assert drawn is not None
    assert drawn["process"] != os.getpid()


def test_a_cell_that_fails_names_itself_and_the_finished_stay(tmp_path: Path, log: Path) -> None:
    good = make_cells(log, 3)
    bad = Cell("bad", "tests.ml.lab.toy:fail", {})
    with pytest.raises(ValueError, match="cannot run") as failure:
        run([*good, bad], tmp_path / "cells")
    assert failure.value.__notes__ == ["in cell bad of the lab"]
    assert read_result(tmp_path / "cells", good[0]) == {"number": 3}


def test_who_kills_a_run_ends_its_processes(tmp_path: Path, log: Path) -> None:
    """A cell may take many minutes, and the next run would share the machine with it."""
    code = (
        "from pathlib import Path; from ml.lab.cells import Cell; from ml.lab.engine import run_cells\n"
        "if __name__ == '__main__':\n"
        f"    cell = Cell('hang', 'tests.ml.lab.toy:hang', {{'log': {str(log)!r}}})\n"
        f"    run_cells([cell], Path({str(tmp_path / 'cells')!r}), jobs=1, commit='abc')\n"
    )
    (tmp_path / "run.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, str(tmp_path / "run.py")], env=environment) as whole:
        wait_until(lambda: bool(log.read_text()), 60)
        worker = psutil.Process(int(log.read_text()))
        assert worker.is_running()
        whole.kill()
    worker.wait(timeout=30)


def test_kept_cells_of_other_commits_are_counted(tmp_path: Path, log: Path) -> None:
    """Settings name a cell, not the code: a person is told whose results a run goes on with."""
    cells = make_cells(log, 3, 4)
    run(cells, tmp_path / "cells")
    assert find_other_commits(cells, tmp_path / "cells", "abc") == {}
    assert find_other_commits(cells, tmp_path / "cells", "new") == {"abc": 3}
    assert find_other_commits(make_cells(log, 8), tmp_path / "cells", "new") == {}


def test_a_document_is_json_with_a_line_for_each_cell(tmp_path: Path) -> None:
    document = {"cells": {"b": {"x": [1, 2]}, "a": {"y": 0.5}}, "command": "c", "figures": {"f": {"mean": 1.0}}}
    text = encode_document(document)
    assert json.loads(text) == document
    assert '  "a": {"y": 0.5},\n  "b": {"x": [1, 2]}\n' in text


def test_no_more_processes_than_the_memory_holds() -> None:
    assert choose_jobs(8, 2**30, lambda: 3 * 2**30) == 3
    assert choose_jobs(2, 2**30, lambda: 2**40) == 2
    assert choose_jobs(None, 2**40, lambda: 2**30) == 1


@pytest.mark.parametrize("name", list_experiments())
def test_every_shipped_experiment_plans_cells(name: str) -> None:
    settings = read_settings(name)
    planned = settings.get_module().plan(settings)
    assert planned
    assert len({cell.name for cell in planned}) == len(planned)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "is not TOML"),
        ('title = "t"', "lacks experiment, seeds"),
        ('experiment = "none"\ntitle = "t"\nseeds = [1]', "which is no module"),
        ('experiment = "cells"\ntitle = "t"\nseeds = [1, 1]', "give at least one, none twice"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(LabError, match=message):
        read_settings(str(path))


def test_an_unknown_experiment_names_the_known_ones() -> None:
    with pytest.raises(LabError, match=r"no experiment 'cooking'"):
        read_settings("cooking")


def test_forms_of_a_file_replace_single_values(tmp_path: Path) -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}}) == {"a": {"b": 9, "c": 2}, "d": 3}
    path = tmp_path / "mine.toml"
    path.write_text(
        'experiment = "cells"\ntitle = "t"\nseeds = [1, 2]\nsteps = 9\n[form.tiny]\nsteps = 3\n[quick]\nseeds = [1]\n'
    )
    assert (read_settings(str(path))["steps"], read_settings(str(path), form="tiny")["steps"]) == (9, 3)
    quick = read_settings(str(path), quick=True)
    assert (quick.name, quick.seeds, quick["steps"]) == ("mine-quick", (1,), 9)
    with pytest.raises(LabError, match="has no form 'huge'; there are: tiny"):
        read_settings(str(path), form="huge")


def test_bounds_over_seeds_and_of_rates() -> None:
    """Against tables: t(2) = 2.920 at 95 %; none of 60 is below 4.9 % (the rule of three says 5 %)."""
    assert compute_upper_bound([1.0]) is None
    assert compute_upper_bound([1.0, 2.0, 3.0]) == pytest.approx(2 + 2.920 / 3**0.5)
    assert compute_rate_bound(0, 60) == pytest.approx(1 - 0.05 ** (1 / 60), abs=1e-9)
    assert compute_rate_bound(5, 10) == pytest.approx(0.7776, abs=1e-4)
    assert compute_rate_bound(4, 4) == 1.0


def test_a_report_names_machine_and_seeds_within_the_width_of_documents() -> None:
    from ml.lab.document import _make_head

    document = {"title": "T", "command": "flockchain lab run t", "date": "2026-11-21", "machine": "m " * 60}
    document |= {"processes": 2, "process_seconds": 90.0, "versions": {"torch": "2"}, "commits": ["abc"]}
    head = _make_head(document | {"seeds": [0, 1], "experiment": "t"})
    assert "- seeds: 0, 1" in head
    assert "2 processes, 2 process minutes" in head
    assert max(map(len, head.splitlines())) <= 120
