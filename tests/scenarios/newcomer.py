"""`flockchain start` for a node to which a chain of `LONG_BLOCKS` is long enough to join by snapshot.

    python -m tests.scenarios.newcomer --home HOME

Real nodes ask for a snapshot from 1,000 blocks on, a minute after genesis: more than a scenario has.
"""

import argparse
import sys
from pathlib import Path

from flockchain.node import run, snapshot_offers

LONG_BLOCKS = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.newcomer")
    parser.add_argument("--home", type=Path, required=True)
    snapshot_offers.LONG_CHAIN_BLOCKS = LONG_BLOCKS
    run.YOUNG_CHAIN_MS = 0
    return run.run_node(parser.parse_args().home)


if __name__ == "__main__":
    sys.exit(main())
