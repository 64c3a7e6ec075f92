"""Every call of the disk fails once: the story is told with trouble at call 1, 2, 3 ... until none is left."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .disk import Kind, Remains, Trouble
from .life import make_home, quiet
from .story import RESTART_LIMIT_S, Outcome, Story

Case = tuple[Kind, Remains]
CASES: tuple[Case, ...] = (
    ("full", "kept"),
    ("die-before", "lost"),
    ("die-torn", "half"),
    ("error", "kept"),
    ("die-after", "lost"),
    ("die-before", "kept"),
    ("full", "lost"),
    ("die-torn", "kept"),
    ("error", "lost"),
    ("die-before", "half"),
    ("die-after", "kept"),
)
"""How a call fails, and what is left of what was not synced."""
ADVICE = ("start again", "and start")
"""A fault that ends the process says what to do next, and that ends with a start."""


@dataclass(frozen=True)
class Point:
    """One call that failed, and what became of it."""

    at: int
    case: Case
    outcome: Outcome
    problem: str
    """Why this is a finding; empty when all is well."""

    def __str__(self) -> str:
        kind, remains = self.case
        told = f"; the operator read: {self.outcome.fault}" if self.outcome.fault else ""
        return f"call {self.at} ({self.outcome.struck}), {kind}, {remains}: {self.problem or 'well'}{told}"


def sweep(folder: Path, *, first: int = 1, step: int = 1, cases: Sequence[Case] | None = None) -> Iterator[Point]:
    """Trouble at call `first`, `first + step`, ...: with each of `cases`, or with one of all in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    template = folder / "template"
    make_home(template)
    expected = _tell(folder, template, None, "kept")
    at = first
    while True:
        for case in cases or (CASES[at % len(CASES)],):
            try:
                outcome = _tell(folder, template, Trouble(at, case[0]), case[1])
            except AssertionError as error:
                yield Point(at, case, expected, str(error))
                continue
            if not outcome.struck:
                return
            yield Point(at, case, outcome, _find_problem(outcome, expected))
        at += step


def _tell(folder: Path, template: Path, trouble: Trouble | None, remains: Remains) -> Outcome:
    run = folder / "run"
    run.mkdir()
    try:
        with quiet():
            return Story(run, template, trouble, remains).tell()
    finally:
        shutil.rmtree(run)


def _find_problem(outcome: Outcome, expected: Outcome) -> str:
    if outcome.accounts != expected.accounts:
        return f"ended at height {outcome.height} with other balances than without the failure"
    # A height in progress when the mempool was lost is decided without the transfer, which the client sends again.
    if outcome.height not in (expected.height, expected.height + 1):
        return f"ended at height {outcome.height}, {expected.height} without the failure"
    if outcome.height == expected.height and outcome.state_root != expected.state_root:
        return f"ended at height {outcome.height} with another state than without the failure"
    if outcome.restart_s > RESTART_LIMIT_S:
        return f"a start took {outcome.restart_s:.1f} s"
    if outcome.fault and not any(advice in outcome.fault for advice in ADVICE):
        return "the fault does not say what to do next"
    return ""
