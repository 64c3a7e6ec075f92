"""The hashes over the event logs of a few seeds, as committed: another Python must reach the same.

    python -m tests.simulator.node.golden      after a change of what nodes do: write them anew

A line of the log says when what happened to whom, not which bytes, so only a change of behaviour changes a hash.
"""

import json
from pathlib import Path

from .run import run_seed

FILE = Path(__file__).with_name("golden.json")
SEEDS = ((0, 4), (1, 5), (2, 4), (3, 5), (5, 7))


def compute() -> dict[str, str]:
    """By ``seed/n``."""
    return {f"{seed}/{n}": run_seed(seed, n).digest for seed, n in SEEDS}


if __name__ == "__main__":
    FILE.write_text(json.dumps(compute(), indent=1) + "\n")
    print(FILE.read_text(), end="")
