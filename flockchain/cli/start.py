"""`flockchain start`: run a validator or a full node."""

import sys

from flockchain.cli.common import HomeOption, IndexOption, find_home


def start(home: HomeOption = None, index: IndexOption = None) -> None:
    """Run the node of a home until SIGTERM or Ctrl-C. Example: flockchain start --home ~/.flockchain"""
    from flockchain.node.run import run_node

    sys.exit(run_node(find_home(home, index)))
