"""Run seeds and say how to run a failing one again."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from .app import ToyApp
from .chain_app import ChainApp
from .faults import SIZES
from .invariants import Violation
from .world import AppFactory, Outcome, World

APPS = ("toy", "chain")
"""`toy`: a hash chain, for many seeds; `chain`: the real execution."""


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


def size_of(seed: int, sizes: tuple[int, ...] = SIZES) -> int:
    """How many validators a seed's network has."""
    return sizes[seed % len(sizes)]


def simulate(seed: int, n: int, app: str = "toy", trace: Callable[[str], None] | None = None) -> Outcome | Finding:
    """One network, ten heights. A failed assertion of the core is a finding like a broken invariant."""
    assert app in APPS
    new_app: AppFactory = ToyApp if app == "toy" else partial(ChainApp, n)
    try:
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
