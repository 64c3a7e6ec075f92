"""Run seeds and say how to run a failing one again."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from .app import ToyApp
from .chain_app import ChainApp
from .faults import SIZES
from .invariants import Violation
from .node.run import SIZES as NODE_SIZES
from .node.run import run_seed, run_split
from .world import AppFactory, World

APPS = ("toy", "chain", "node", "split")
"""`toy`, `chain`: the consensus core over a hash chain, for many seeds, and over the real execution. `node`: the real
node. `split`: real nodes with too many faulty ones; the chain must fork."""


class Outcome(Protocol):
    """What one seed was."""

    @property
    def seed(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def events(self) -> int: ...
    @property
    def heights(self) -> int: ...
    @property
    def crashes(self) -> int: ...
    @property
    def highest_round(self) -> int: ...
    @property
    def counts(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class Finding:
    """A seed that broke something."""

    seed: int
    n: int
    app: str
    what: str

    @property
    def replay(self) -> str:
        return f"python -m tests.simulator --first {self.seed} --seeds 1 --n {self.n} --app {self.app} --trace"


def sizes_of(app: str) -> tuple[int, ...]:
    """Network sizes, one per seed in turn."""
    return NODE_SIZES if app == "node" else SIZES


def size_of(seed: int, sizes: tuple[int, ...] = SIZES) -> int:
    """How many validators a seed's network has."""
    return sizes[seed % len(sizes)]


def simulate(seed: int, n: int, app: str = "toy", trace: Callable[[str], None] | None = None) -> Outcome | Finding:
    """One network. A failed assertion of the program is a finding like a broken invariant."""
    assert app in APPS
    try:
        if app == "node":
            return run_seed(seed, n, trace)
        if app == "split":
            return run_split(seed, n, trace)
        new_app: AppFactory = ToyApp if app == "toy" else partial(ChainApp, n)
        return World(seed, n, new_app, trace=trace).run()
    except Violation as violation:
        return Finding(seed, n, app, str(violation))
    except Exception:
        return Finding(seed, n, app, traceback.format_exc())


def first_violation(seeds: Iterable[int], invariant: str, sizes: tuple[int, ...] = SIZES) -> int | None:
    """The first of the seeds that breaks this invariant, if one does."""
    for seed in seeds:
        try:
            World(seed, size_of(seed, sizes)).run()
        except Violation as violation:
            if violation.invariant == invariant:
                return seed
        except AssertionError:  # a broken core may trip over itself first
            continue
    return None
