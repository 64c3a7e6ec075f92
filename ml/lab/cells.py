"""Cells: one function with its settings, what it needs, and where its result is kept."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from ml.lab import Json


@dataclass(frozen=True)
class Cell:
    """Settings hold everything that the result depends on, as JSON values; the name is for people alone."""

    name: str
    run: str
    """`module:function`, which takes a `Work` and returns JSON."""
    settings: Mapping[str, Any]
    needs: tuple["Cell", ...] = field(default=())

    @cached_property
    def key(self) -> str:
        """Hex sha256 over function, settings and the keys of what it needs."""
        facts = [self.run, self.settings, [cell.key for cell in self.needs]]
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Work:
    """What a cell's function gets: its settings, the results it needs, and a folder for the files of all cells."""

    cell: Cell
    folder: Path

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.cell.settings

    @property
    def file(self) -> Path:
        """This cell's own file, for what is too large or too exact for JSON."""
        return file_of(self.folder, self.cell)

    def result(self, need: Cell) -> Json:
        """The result of a cell that this one needs."""
        assert need in self.cell.needs, f"{self.cell.name} does not need {need.name}"
        found = read_result(self.folder, need)
        assert found is not None, f"{need.name} has not run"
        return found

    def results(self) -> list[Json]:
        return [self.result(need) for need in self.cell.needs]

    def file_of(self, need: Cell) -> Path:
        """The file that a needed cell wrote."""
        assert need in self.cell.needs, f"{self.cell.name} does not need {need.name}"
        return file_of(self.folder, need)


def execute(cell: Cell, folder: Path) -> Json:
    """Run the cell's function in this process; its result, which the caller keeps."""
    module, _, function = cell.run.partition(":")
    result: Json = getattr(import_module(module), function)(Work(cell, folder))
    return result


def read_result(folder: Path, cell: Cell) -> Json | None:
    """The kept result, or None. A file that was cut short by a crash counts as none."""
    try:
        kept: Json = json.loads(_path(folder, cell).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    found: Json = kept["result"]
    return found


def read_facts(folder: Path, cell: Cell) -> Json:
    """Name, seconds and commit of a kept result."""
    kept: Json = json.loads(_path(folder, cell).read_text(encoding="utf-8"))
    return {name: kept[name] for name in ("name", "seconds", "commit")}


def keep_result(folder: Path, cell: Cell, result: Json, *, seconds: float, commit: str) -> None:
    """Write the result, whole or not at all."""
    kept = {"name": cell.name, "run": cell.run, "settings": dict(cell.settings), "seconds": round(seconds, 2)}
    kept |= {"commit": commit, "result": result}
    path = _path(folder, cell)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(kept, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def file_of(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.key[:32]}.bin"


def _path(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.key[:32]}.json"


def list_all(cells: Iterable[Cell]) -> list[Cell]:
    """The cells and everything that they need, each once, what is needed first."""
    found: dict[str, Cell] = {}

    def visit(cell: Cell) -> None:
        if cell.key not in found:
            for need in cell.needs:
                visit(need)
            found[cell.key] = cell

    for cell in cells:
        visit(cell)
    return list(found.values())
