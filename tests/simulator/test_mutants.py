"""Tests of the tests: each broken rule is caught within `SEEDS` seeds."""

import pytest

from .faults import SIZES
from .invariants import Invariants
from .mutants import MUTANTS, replaced
from .run import first_violation

SEEDS = 50


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulator_catches_the_mutant(name: str) -> None:
    mutant = MUTANTS[name]
    with mutant.patch():
        caught = first_violation(range(SEEDS), mutant.invariant, mutant.sizes or SIZES)
    assert caught is not None, f"{name}: {mutant.invariant} held for {SEEDS} seeds"


@pytest.mark.parametrize("name", ["quorum of half", "duplicates counted"])
def test_agreement_itself_breaks_where_certificates_are_not_looked_at(name: str) -> None:
    mutant = MUTANTS[name]
    with mutant.patch(), replaced(Invariants, "check_commit", lambda *_: None):
        assert first_violation(range(SEEDS), "agreement", mutant.sizes or SIZES) is not None


def test_without_a_mutant_the_same_seeds_are_clean() -> None:
    for invariant in ("agreement", "liveness", "one signature"):
        assert first_violation(range(3), invariant) is None
