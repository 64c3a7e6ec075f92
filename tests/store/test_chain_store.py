"""A decided block is on disk whole or not at all, whatever fails; what is wrong with a file is said in a sentence."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from flockchain.codec import encode
from flockchain.errors import Fault
from flockchain.state_tree import StateTree
from flockchain.store.chain_store import ChainStore
from flockchain.types.rows import Account, row_key
from tests.store.history import ALICE, BOB, GENESIS_BYTES, POOL_UFLK, Decided, History

CRASHED = 9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chain.sqlite"


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def store(path: Path, history: History) -> Iterator[ChainStore]:
    store = ChainStore(path)
    store.initialize(GENESIS_BYTES, history.genesis_rows)
    yield store
    store.close()


def compute_root_of_rows(store: ChainStore) -> bytes:
    tree = StateTree()
    tree.update({row_key(row): encode(row) for row in store.load_rows()})
    return tree.root


def test_a_new_file_holds_genesis_at_height_0(store: ChainStore, history: History) -> None:
    assert store.height == 0
    assert store.genesis_bytes == GENESIS_BYTES
    assert sorted(store.load_rows(), key=row_key) == sorted(history.genesis_rows, key=row_key)
    assert store.state_root() == history.state_root
    assert store.block(1) is None
    assert store.commit(1) is None


def test_what_was_persisted_comes_back_equal_after_reopening(path: Path, history: History) -> None:
    first = ChainStore(path)
    first.initialize(GENESIS_BYTES, history.genesis_rows)
    block, commit, outcome = history.next_block(transfers=3)
    first.persist_block(block, commit, outcome)
    first.close()
    again = ChainStore(path)
    assert again.height == 1
    assert again.block(1) == block
    assert again.commit(1) == commit
    assert {row_key(row): row for row in again.load_rows()} == history.rows
    assert again.state_root() == outcome.state_root == compute_root_of_rows(again)
    again.close()


def test_a_deleted_row_is_gone(store: ChainStore, history: History) -> None:
    carol = Account(b"c" * 20, 5, 0)
    store.persist_block(*history.next_block(extra={row_key(carol): carol}))
    assert carol in list(store.load_rows())
    store.persist_block(*history.next_block(extra={row_key(carol): None}))
    assert carol not in list(store.load_rows())


def test_several_blocks_persist_in_one_transaction(store: ChainStore, history: History) -> None:
    store.persist_blocks([history.next_block() for _ in range(5)])
    assert store.height == 5
    assert compute_root_of_rows(store) == history.state_root


def test_a_gap_between_blocks_is_a_bug_of_ours(store: ChainStore, history: History) -> None:
    history.next_block()
    with pytest.raises(AssertionError, match="block 2 does not follow 0"):
        store.persist_block(*history.next_block())
    assert store.height == 0


def test_a_failure_at_any_statement_leaves_the_store_as_it_was(store: ChainStore, history: History) -> None:
    decided = history.next_block()
    before = list(store.load_rows())
    failed = 0
    for at in range(1, 20):
        remaining = [at]

        def fail(*_: object, remaining: list[int] = remaining) -> None:
            remaining[0] -= 1
            if remaining[0] == 0:
                raise sqlite3.OperationalError("database or disk is full")

        event.listen(store._engine, "before_cursor_execute", fail)
        try:
            store.persist_block(*decided)
        except Fault as fault:
            failed += 1
            assert "the disk is full" in str(fault)  # noqa: PT017 - not every round of the loop raises
            event.remove(store._engine, "before_cursor_execute", fail)
            assert store.height == 0
            assert list(store.load_rows()) == before
        else:
            event.remove(store._engine, "before_cursor_execute", fail)
            break
    assert failed >= 4, "a block takes at least four statements: block, txs, receipts, rows"
    assert store.height == 1
    assert compute_root_of_rows(store) == decided[2].state_root


@pytest.mark.parametrize("at", range(1, 8))
def test_a_process_that_dies_at_any_statement_leaves_whole_blocks(path: Path, history: History, at: int) -> None:
    store = ChainStore(path)
    store.initialize(GENESIS_BYTES, history.genesis_rows)
    store.persist_block(*history.next_block())
    store.close()
    child = os.fork()
    if child == 0:
        die_at_statement(path, history, at)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, CRASHED)
    again = ChainStore(path)
    assert again.height in (1, 2)
    assert again.block(again.height + 1) is None
    assert compute_root_of_rows(again) == again.state_root()
    again.close()


def die_at_statement(path: Path, history: History, at: int) -> None:
    """In a child process: open, persist one block, and vanish before statement `at` (or the COMMIT after the last)."""
    remaining = [at]

    def die(*_: object) -> None:
        remaining[0] -= 1
        if remaining[0] == 0:
            os._exit(CRASHED)

    try:
        store = ChainStore(path)
        event.listen(store._engine, "before_cursor_execute", die)
        event.listen(store._engine, "commit", die)
        store.persist_block(*history.next_block())
    finally:
        os._exit(0)


@pytest.mark.parametrize("at", [1, 2, 9, 100, 255, 256, "commit"])
def test_a_process_that_dies_among_64_blocks_leaves_a_whole_prefix(path: Path, history: History, at: int | str) -> None:
    """Block sync persists up to 64 blocks in one transaction: a crash at a statement or COMMIT leaves all or none."""
    store = ChainStore(path)
    store.initialize(GENESIS_BYTES, history.genesis_rows)
    store.persist_block(*history.next_block())
    store.close()
    decided = [history.next_block() for _ in range(64)]
    child = os.fork()
    if child == 0:
        die_among_blocks(path, decided, at)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == CRASHED
    again = ChainStore(path)
    assert again.height == 1
    assert compute_root_of_rows(again) == again.state_root()
    again.persist_blocks(decided)
    assert again.height == 65
    assert compute_root_of_rows(again) == history.state_root
    again.close()


def die_among_blocks(path: Path, decided: list[Decided], at: int | str) -> None:
    """In a child process: vanish before statement `at` of 64 blocks, or before their COMMIT."""
    seen = [0]

    def die(*_: object) -> None:
        seen[0] += 1
        if seen[0] == at:
            os._exit(CRASHED)

    try:
        store = ChainStore(path)
        event.listen(store._engine, "before_cursor_execute", die)
        if at == "commit":
            event.listen(store._engine, "commit", lambda _: os._exit(CRASHED))
        store.persist_blocks(decided)
    finally:
        os._exit(0)


def test_a_kill_while_blocks_stream_in_loses_nothing_that_was_reported(path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from flockchain.store.chain_store import ChainStore\n"
        "from tests.store.history import GENESIS_BYTES, History\n"
        "history, store = History(), ChainStore(Path(sys.argv[1]))\n"
        "store.initialize(GENESIS_BYTES, history.genesis_rows)\n"
        "while True:\n"
        "    store.persist_block(*history.next_block())\n"
        "    print(store.height, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    reported = 0
    while reported < 25:
        reported = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    reported = max([reported, *(int(line) for line in writer.stdout.read().splitlines())])
    writer.wait(10)
    writer.stdout.close()
    store = ChainStore(path)
    assert store.height >= reported
    assert compute_root_of_rows(store) == store.state_root()
    rows = {row_key(row): row for row in store.load_rows()}
    assert rows[row_key(Account(BOB, 0, 0))] == Account(BOB, 2 * store.height, 0)
    assert rows[row_key(Account(ALICE, 0, 0))] == Account(ALICE, POOL_UFLK - 2 * store.height, 2 * store.height)
    store.close()


def test_checkpoints_happen_when_asked_and_the_log_begins_anew(store: ChainStore, history: History) -> None:
    store.persist_block(*history.next_block(transfers=50))
    grown = store.log_bytes
    assert grown > 0
    store.checkpoint()
    store.persist_block(*history.next_block(transfers=1))
    assert store.log_bytes == grown, "the log was written from its beginning again"
    assert compute_root_of_rows(store) == history.state_root


def test_a_second_writer_is_told_that_one_is_at_work(store: ChainStore, path: Path) -> None:
    with pytest.raises(Fault, match="another node runs on this home"):
        ChainStore(path)


def test_a_file_of_a_newer_schema_is_refused_and_untouched(path: Path, history: History) -> None:
    store = ChainStore(path)
    store.initialize(GENESIS_BYTES, history.genesis_rows)
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = CAST('99' AS BLOB) WHERE name = 'schema_version'")
    connection.commit()
    connection.close()
    for _ in range(2):
        with pytest.raises(Fault, match="schema version 99, this program reads up to"):
            ChainStore(path)


def test_a_file_that_is_no_database_is_named_damaged(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to have been one " * 100)
    with pytest.raises(Fault, match="the file is damaged"):
        ChainStore(path)


def test_a_damaged_row_is_named(path: Path, history: History) -> None:
    store = ChainStore(path)
    store.initialize(GENESIS_BYTES, history.genesis_rows)
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE state_rows SET value = x'00' WHERE key = (SELECT max(key) FROM state_rows)")
    connection.commit()
    connection.close()
    store = ChainStore(path)
    with pytest.raises(Fault, match="is damaged"):
        list(store.load_rows())
    store.close()


def test_a_full_disk_is_said_and_the_next_try_succeeds(store: ChainStore, history: History) -> None:
    decided = history.next_block(transfers=2_000)
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(Fault, match="the disk is full"):
        store.persist_block(*decided)
    assert store.height == 0
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    store.persist_block(*decided)
    assert compute_root_of_rows(store) == decided[2].state_root


def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(Fault, match="data"):
        ChainStore(tmp_path / "data" / "chain.sqlite")
