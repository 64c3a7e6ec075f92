"""A chain whose first blocks are not held: what can be recomputed is, and what cannot is named."""

from pathlib import Path

import pytest

from flockchain.store.chain_store import ChainStore
from flockchain.store.retention import forget_blocks
from flockchain.verify.audit import verify_home
from tests.support.stored_chain import StoredChain


@pytest.fixture
def chain(tmp_path: Path) -> StoredChain:
    """A snapshot at 6, blocks to 10, those up to 4 forgotten."""
    chain = StoredChain(tmp_path / "home")
    chain.grow(6)
    chain.snapshots.make(chain.home.chain)
    chain.grow(4)
    with chain.store._engine.begin() as connection:
        forget_blocks(connection, 4)
    chain.store.close()
    return chain


def test_the_blocks_after_a_snapshot_are_recomputed_and_those_before_named(chain: StoredChain) -> None:
    report = verify_home(chain.home.path)
    assert report.ok
    assert (report.from_height, report.height) == (6, 10)
    assert not report.is_complete
    assert "blocks 1 to 6" in report.unchecked[0].what


def test_a_changed_row_after_a_snapshot_is_found(chain: StoredChain) -> None:
    store = ChainStore(chain.home.chain)
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE blocks SET state_root = zeroblob(32) WHERE height = 8")
    store.close()
    report = verify_home(chain.home.path)
    assert [problem.height for problem in report.problems] == [8]


def test_without_a_snapshot_nothing_is_recomputed_and_that_is_said(chain: StoredChain) -> None:
    chain.snapshots.keep_newest(0)
    report = verify_home(chain.home.path)
    assert report.ok
    assert not report.is_complete
    assert "blocks 5 to 10 were not recomputed" in report.unchecked[0].what
