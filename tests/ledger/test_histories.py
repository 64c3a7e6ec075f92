"""Seeded histories over all transaction types, short ones; `make sim` plays 20 of 500 blocks x 200 operations."""

from collections import Counter

import pytest

from flockchain.txs import TYPES
from tests.ledger.golden import SEEDS, describe, play_short, read_golden
from tests.ledger.rules import RULES
from tests.ledger.run import play


def test_every_type_has_a_rule() -> None:
    assert sorted(RULES) == sorted(TYPES), "tests/ledger/rules.py: one rule for each transaction type"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_comes_to_its_golden_roots(seed: int) -> None:
    """On every Python: what differs between two versions would fork a network that runs both.

    After a change that is meant to alter histories: python -m tests.ledger --write-golden
    """
    assert describe(play_short(seed)) == read_golden()[str(seed)]


def test_every_type_succeeded_and_was_refused() -> None:
    """Otherwise the histories prove less than they say."""
    counts: Counter[tuple[str, str]] = sum((play_short(seed).counts for seed in SEEDS), Counter())
    for kind in TYPES:
        assert counts[kind, "ok"] > 0, f"no {kind} succeeded in {SEEDS}"
        assert any(name == kind and code != "ok" for name, code in counts), f"no {kind} was refused in {SEEDS}"
    assert len({code for _, code in counts}) >= 40


def test_a_seed_is_a_history() -> None:
    one, again, other = play(7, 3, 10), play(7, 3, 10), play(8, 3, 10)
    assert one == again
    assert one.state_root != other.state_root
