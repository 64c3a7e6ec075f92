"""Run `flockchain ...` in this process, as a shell would see it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flockchain.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error_lines(self) -> list[str]:
        return self.err.strip().splitlines()


class Shell:
    """`shell("tx", "transfer", ...)`; arguments may be paths and numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str | int | Path) -> Ran:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["flockchain", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = self._capsys.readouterr()
        code = exit_.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)

    def must(self, *words: str | int | Path) -> Any:
        """The JSON of a command that succeeds; `--json` is added."""
        ran = self(*words, "--json")
        assert ran.code == 0, ran.err
        return ran.json


def to_human(value: Any) -> Any:
    """A struct as a person would write it in a spec file: hex, and a unit here and there."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [to_human(item) for item in value]
    if not hasattr(value, "__struct_fields__"):
        return value
    found = {name: to_human(getattr(value, name)) for name in value.__struct_fields__}
    if "train_ms" in found:
        found["train_ms"] = f"{found['train_ms'] // 1000}s"
    if "min_bond_uflk" in found:
        found["min_bond_uflk"] = f"{found['min_bond_uflk'] // 1_000_000} FLK"
    return found
