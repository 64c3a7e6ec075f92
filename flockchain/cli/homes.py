"""What the commands on a stopped node's home share: its lock, its genesis document, its chain."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flockchain.cli.genesis import read_genesis
from flockchain.errors import Refused
from flockchain.genesis import Genesis
from flockchain.node.home import Home, HomeLock


def open_home(path: Path) -> tuple[Home, Genesis]:
    """A home with its genesis document; raises `Refused` when it has none."""
    home = Home(path)
    if not home.genesis.exists():
        raise Refused(
            "no-home", f"{home.genesis} is missing: name a node's home with --home, or put the document there"
        )
    return home, read_genesis(home.genesis)


def check_has_chain(home: Home) -> None:
    if not home.chain.exists():
        raise Refused("no-chain", f"{home.path} holds no chain (data/chain.sqlite): give a node's home with --home")


@contextmanager
def stopped(home: Home) -> Iterator[None]:
    """While this lasts no node runs on the home; raises `Fault` when one does."""
    lock = HomeLock(home)
    try:
        yield
    finally:
        lock.release()
