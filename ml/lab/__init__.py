"""The lab: experiments on the network's own code, with seeds, controls and reports that explain themselves.

An experiment is a TOML file under `experiments/` and the module that it names. The module offers

    plan(settings) -> list[Cell]              # what is wanted; the cells that these need run first
    summarize(settings, results) -> dict      # figures by name, from the planned cells' results by cell name
    report(document) -> str                   # Markdown from the finished document alone
    plot(document, folder) -> list[Path]      # optional
    describe_cost(settings) -> str            # optional: what a run takes, told before it

A cell is a function with settings. Its result is kept under the hash of both, so an interrupted run goes on where it
stopped and two experiments share what they have in common. docs/lab.md says more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


class LabError(RuntimeError):
    """An experiment that cannot run; the sentence says what was wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a run tells after each cell."""

    done: int
    of: int
    name: str
    seconds: float
    left_s: float
    """Estimate from the mean time of each kind of cell so far."""


Watch = Callable[[Step], None]
