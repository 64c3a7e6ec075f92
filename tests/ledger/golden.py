"""Histories whose roots are on record: every Python version and machine that runs the tests must come to them.

A change of protocol or rules changes them on purpose; `python -m tests.ledger --write-golden` records them anew.
"""

import json
from functools import cache
from pathlib import Path

from tests.ledger.run import History, play

PATH = Path(__file__).with_name("golden.json")
SEEDS = (1, 2, 3)
BLOCKS = 60
OPS = 40


@cache
def play_short(seed: int) -> History:
    """The short form, played once for all tests that look at it."""
    return play(seed, BLOCKS, OPS)


def describe(history: History) -> dict[str, str]:
    return {"state_root": history.state_root.hex(), "results_root": history.results_root.hex()}


def read_golden() -> dict[str, dict[str, str]]:
    """Roots by seed."""
    recorded: dict[str, dict[str, str]] = json.loads(PATH.read_text())
    return recorded


def write_golden() -> None:
    recorded = {str(seed): describe(play_short(seed)) for seed in SEEDS}
    PATH.write_text(json.dumps(recorded, indent=2) + "\n")
    print(f"recorded seeds {', '.join(recorded)} in {PATH}")
