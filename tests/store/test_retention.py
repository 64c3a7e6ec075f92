"""Old blocks go, in small steps, and never those that evidence, light clients, snapshots or peers still need."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from flockchain.errors import Refused
from flockchain.params import Params, StakeParams
from flockchain.store.reader import Reader
from flockchain.store.retention import LEAST_BLOCKS, STEP_BLOCKS
from tests.support.ledger import make_genesis
from tests.support.stored_chain import StoredChain

UNBONDING_MS = 30_000
Make = Callable[..., StoredChain]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A chain with an unbonding time of 30 s, whose blocks are a second apart."""
    made: list[StoredChain] = []

    def make_chain(retain_blocks: int, unbonding_ms: int = UNBONDING_MS) -> StoredChain:
        stake = StakeParams(
            unbonding_ms=unbonding_ms, evidence_age_ms=unbonding_ms // 2, trusting_period_ms=unbonding_ms // 4
        )
        genesis = make_genesis(validators=1, params=msgspec.structs.replace(Params(), stake=stake))
        made.append(StoredChain(tmp_path / f"home{len(made)}", genesis, retain_blocks=retain_blocks))
        return made[-1]

    yield make_chain
    for chain in made:
        chain.store.close()


def test_an_archive_keeps_everything(make: Make) -> None:
    chain = make(0)
    chain.grow(LEAST_BLOCKS + 20, txs=0)
    assert chain.store.first_height == 1


def test_the_newest_blocks_are_kept_and_the_state_is_untouched(make: Make) -> None:
    chain = make(LEAST_BLOCKS + 5)
    chain.grow(LEAST_BLOCKS + 20)
    tip, first = LEAST_BLOCKS + 20, 16
    assert (chain.store.first_height, chain.store.height) == (first, tip)
    assert chain.store.block(first - 1) is None
    assert chain.store.commit(first - 1) is None
    assert chain.store.block(first) == chain.blocks[first - 1]
    assert chain.store.state_root() == chain.state.root
    assert list(chain.store.load_rows()) == list(chain.state.rows())
    reader = Reader(chain.home.chain)
    with reader.snapshot() as stored:
        assert stored.first_height() == first
        assert stored.tx(chain.outcomes[first - 2].results[0].hash) is None
        assert stored.tx(chain.outcomes[first - 1].results[0].hash) is not None
        assert stored.light_block(first) is not None
        with pytest.raises(Refused, match=rf"block {first - 1} is pruned: this node holds blocks {first} to {tip}"):
            stored.check_not_pruned(first - 1)
        stored.check_not_pruned(first)
    reader.close()


def test_blocks_within_the_unbonding_time_stay(make: Make) -> None:
    chain = make(LEAST_BLOCKS, unbonding_ms=150_000)
    chain.grow(LEAST_BLOCKS + 100, txs=0)
    assert chain.store.first_height == LEAST_BLOCKS + 100 - 150, "the block of exactly that age stays"


def test_blocks_from_the_oldest_snapshot_on_stay(make: Make) -> None:
    chain = make(LEAST_BLOCKS)
    chain.store.snapshot_height = 10
    chain.grow(LEAST_BLOCKS + 30, txs=0)
    assert chain.store.first_height == 10


def test_a_new_setting_is_reached_in_bounded_steps(make: Make) -> None:
    """An archive that shall now forget does so over many blocks: none takes more than a step."""
    chain = make(0)
    chain.grow(LEAST_BLOCKS + 60, txs=0)
    chain.store._retain_blocks = LEAST_BLOCKS
    firsts = [chain.store.first_height]
    while firsts[-1] < chain.store.height - LEAST_BLOCKS + 1:
        chain.grow(1, txs=0)
        firsts.append(chain.store.first_height)
    steps = [after - before for before, after in pairwise(firsts)]
    assert max(steps) == STEP_BLOCKS
    assert len(steps) >= 60 // STEP_BLOCKS


def test_a_block_full_of_transactions_is_forgotten_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flockchain.store.retention.STEP_TXS", 3)
    chain = make(0)
    chain.grow(4, txs=2)
    chain.grow(LEAST_BLOCKS, txs=0)
    chain.store._retain_blocks = LEAST_BLOCKS
    chain.grow(1, txs=0)
    assert chain.store.first_height == 2, "two transactions and two more are above three"
