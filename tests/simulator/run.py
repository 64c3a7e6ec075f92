"""Run seeds and say how to run a failing one again."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .app import ToyApp
from .faults import SIZES
from .invariants import Violation
from .world import AppFactory, Outcome, World


@dataclass(frozen=True)
class Finding:
    """A seed that broke something."""

    seed: int
    n: int
    what: str

    @property
    def replay(self) -> str:
        return f"python -m tests.simulator --first {self.seed} --seeds 1 --n {self.n} --trace"


def size_of(seed: int, sizes: tuple[int, ...] = SIZES) -> int:
    """How many validators a seed's network has."""
    return sizes[seed % len(sizes)]


def simulate(
    seed: int, n: int, new_app: AppFactory = ToyApp, trace: Callable[[str], None] | None = None
) -> Outcome | Finding:
    """One network, ten heights. A failed assertion of the core is a finding like a broken invariant."""
    try:
        return World(seed, n, new_app, trace=trace).run()
    except Violation as violation:
        return Finding(seed, n, str(violation))
    except Exception:
        return Finding(seed, n, traceback.format_exc())


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
