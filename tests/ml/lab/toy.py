"""Cells whose runs can be counted: each leaves a line in the file that its settings name."""

import os
from pathlib import Path
from threading import Event

from ml.lab.cells import Cell, Work


def draw(work: Work) -> dict[str, int]:
    note(work)
    work.file.write_bytes(b"x" * work.settings["number"])
    return {"number": work.settings["number"], "process": os.getpid()}


def add(work: Work) -> dict[str, int]:
    note(work)
    assert sum(len(work.file_of(need).read_bytes()) for need in work.cell.needs) == sum(
        work.result(need)["number"] for need in work.cell.needs
    )
    return {"number": sum(result["number"] for result in work.results())}


def fail(work: Work) -> dict[str, int]:
    raise ValueError("this cell cannot run")


def note(work: Work) -> None:
    with Path(work.settings["log"]).open("a") as file:
        file.write(work.cell.name + "\n")


def make_cells(log: Path, *numbers: int) -> list[Cell]:
    """One cell that adds, and one for each number that it needs."""
    drawn = tuple(Cell(f"draw/{n}", "tests.ml.lab.toy:draw", {"number": n, "log": str(log)}) for n in numbers)
    return [Cell("add", "tests.ml.lab.toy:add", {"log": str(log)}, drawn)]


def hang(work: Work) -> dict[str, int]:
    """Tells its process and waits for longer than any test does."""
    Path(work.settings["log"]).write_text(str(os.getpid()))
    Event().wait(120)
    return {}
