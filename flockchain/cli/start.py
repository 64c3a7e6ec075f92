"""`flockchain start`: run a validator or a full node."""

import sys

from flockchain.cli.common import HomeOption, IndexOption, find_home
from flockchain.errors import Refused


def start(home: HomeOption = None, index: IndexOption = None) -> None:
    """Run the node of a home until SIGTERM or Ctrl-C. Example: flockchain start --home ~/.flockchain"""
    folder = find_home(home, index)
    for name, remedy in (
        ("config.toml", "make a home with `flockchain init`"),
        ("genesis.json", "put the network's genesis document there"),
    ):
        if not (folder / name).exists():
            raise Refused("no-home", f"{folder / name} is missing: {remedy}")
    from flockchain.node.run import run_node

    sys.exit(run_node(folder))
