"""Readers see whole heights, page through lists, and never wait for the writer nor make it wait."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flockchain.errors import Fault, Malformed
from flockchain.store.chain_store import ChainStore
from flockchain.store.reader import Reader
from flockchain.types.rows import Account, Chain, Stake, ValidatorRow, row_key
from tests.store.history import ALICE, BOB, GENESIS_BYTES, POOL_UFLK, START_MS, VALIDATOR, History


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.sqlite"


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def store(path: Path, history: History) -> Iterator[ChainStore]:
    store = ChainStore(path)
    store.initialize(GENESIS_BYTES, history.genesis_rows)
    yield store
    store.close()


@pytest.fixture
def reader(store: ChainStore, path: Path) -> Iterator[Reader]:
    reader = Reader(path)
    yield reader
    reader.close()


def test_before_the_first_block_the_tip_is_genesis(reader: Reader, history: History) -> None:
    with reader.snapshot() as chain:
        tip = chain.tip()
        assert (tip.height, tip.block_id, tip.time_ms) == (0, b"", START_MS)
        assert tip.state_root == history.state_root
        assert chain.genesis_bytes() == GENESIS_BYTES
        assert chain.block(1) is None
        assert chain.blocks().items == []


def test_what_the_writer_persisted_is_read_back(store: ChainStore, reader: Reader, history: History) -> None:
    block, commit, outcome = history.next_block(transfers=3)
    store.persist_block(block, commit, outcome)
    with reader.snapshot() as chain:
        assert chain.tip().block_id == block.block_id()
        assert chain.tip().state_root == outcome.state_root
        assert chain.find(Account, BOB) == Account(BOB, 3, 0)
        assert chain.find(Account, bytes(20)) is None
        assert chain.chain().height == 1
        stored = chain.block(1)
        assert stored is not None
        assert stored.block.header == block.header
        assert stored.commit == commit
        assert stored.tx_hashes == [result.hash for result in outcome.results]
        assert chain.whole_block(1) == (block, commit)
        tx = chain.tx(outcome.results[2].hash)
        assert tx is not None
        assert (tx.height, tx.position, tx.result, tx.data) == (1, 2, outcome.results[2], block.txs[2])
        assert chain.tx(bytes(32)) is None
        assert chain.count_txs() == 3
        assert chain.rows(ValidatorRow).items[0].owner == ALICE
        assert [stake.owner for stake in chain.rows_by_ref(Stake, f"validator:{VALIDATOR.hex()}").items] == [ALICE]
        assert chain.rows_by_ref(Stake, "task:1").items == []


def test_rows_page_in_key_order(store: ChainStore, reader: Reader, history: History) -> None:
    extra = {row_key(row): row for row in (Account(bytes([i]) * 20, i, 0) for i in range(1, 50))}
    store.persist_block(*history.next_block(extra=extra))
    with reader.snapshot() as chain:
        whole = chain.rows(Account).items
        assert len(whole) == 51
        paged, cursor = list[Account](), None
        while True:
            page = chain.rows(Account, limit=7, cursor=cursor)
            paged += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert paged == whole
        assert sorted(paged, key=row_key) == paged


def test_receipts_page_newest_first_and_filter(store: ChainStore, reader: Reader, history: History) -> None:
    store.persist_blocks([history.next_block() for _ in range(10)])
    with reader.snapshot() as chain:
        first = chain.receipts(account=ALICE, kind="income", limit=4)
        assert [item.height for item in first.items] == [10, 9, 8, 7]
        second = chain.receipts(account=ALICE, limit=6, cursor=first.next_cursor)
        assert [item.height for item in second.items] == [6, 5, 4, 3, 2, 1]
        assert second.next_cursor is None
        assert second.items[0].receipt.facts[0].value == 6
        assert chain.receipts(account=BOB).items == []
        assert chain.receipts(kind="slash").items == []
        assert chain.receipts(task=1, round=1).items == []


def test_blocks_page_newest_first(store: ChainStore, reader: Reader, history: History) -> None:
    store.persist_blocks([history.next_block() for _ in range(5)])
    with reader.snapshot() as chain:
        page = chain.blocks(limit=3)
        assert [item.header.height for item in page.items] == [5, 4, 3]
        assert [item.header.height for item in chain.blocks(cursor=page.next_cursor).items] == [2, 1]


@pytest.mark.parametrize("cursor", ["!", "é", "AA", "_____________", "x" * 1000])
def test_a_cursor_that_nobody_gave_is_refused_or_ends_the_list(reader: Reader, cursor: str) -> None:
    with reader.snapshot() as chain, pytest.raises(Malformed, match="cursor"):
        chain.receipts(cursor=cursor)


def test_a_snapshot_stays_at_its_height_while_blocks_come(store: ChainStore, reader: Reader, history: History) -> None:
    store.persist_block(*history.next_block())
    with reader.snapshot() as chain:
        assert chain.tip().height == 1
        store.persist_block(*history.next_block())
        store.checkpoint()
        assert chain.tip().height == 1
        assert chain.find(Account, BOB) == Account(BOB, 2, 0)
    with reader.snapshot() as chain:
        assert chain.tip().height == 2


def test_every_height_read_while_writing_is_whole(store: ChainStore, reader: Reader, history: History) -> None:
    stop, seen, torn = threading.Event(), set[int](), list[int]()

    def read() -> None:
        while not stop.is_set():
            with reader.snapshot() as chain:
                height = chain.tip().height
                bob = chain.find(Account, BOB) or Account(BOB, 0, 0)
                seen.add(height)
                if bob.balance_uflk != 2 * height or chain.chain().height != height:
                    torn.append(height)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    while len(seen) < 20 or store.height < 60:
        store.persist_block(*history.next_block())
        if store.height % 10 == 0:
            store.checkpoint()
    stop.set()
    for thread in readers:
        thread.join(10)
    assert not torn


def test_a_reader_opens_the_file_of_a_stopped_node(path: Path, history: History) -> None:
    store = ChainStore(path)
    store.initialize(GENESIS_BYTES, history.genesis_rows)
    store.persist_block(*history.next_block())
    store.close()
    reader = Reader(path)
    with reader.snapshot() as chain:
        assert chain.find(Account, ALICE) == Account(ALICE, POOL_UFLK - 2, 2)
        assert chain.find(Chain) == chain.chain()
    reader.close()


def test_a_missing_file_is_said_and_not_made(path: Path) -> None:
    with pytest.raises(Fault, match="does it exist"):
        Reader(path)
    assert not path.exists()


def test_a_reader_cannot_write(reader: Reader) -> None:
    with pytest.raises(Fault, match="readonly"), reader.snapshot() as chain:
        chain._connection.exec_driver_sql("DELETE FROM blocks")
