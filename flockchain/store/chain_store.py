"""The one writer of `data/chain.sqlite`: a decided block becomes one transaction, whole or not at all.

Checkpoints (copying the write-ahead log into the file) make commits bimodal, so SQLite does none by itself: the node
calls `checkpoint()` off its loop when `is_checkpoint_due`, and a block does one only past a hard limit of the log.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Delete, Insert, bindparam, delete, func, inspect, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert

from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import sha256
from flockchain.errors import Fault, Malformed
from flockchain.state_tree import StateTree
from flockchain.store import validator_sets
from flockchain.store.connection import LOG_BYTES, FileLock, checkpoint, faults, open_writer
from flockchain.store.tables import SCHEMA_VERSION, blocks, make_id, meta, metadata, receipts, state_rows, txs
from flockchain.types.chain import Block, Commit
from flockchain.types.rows import TABLES, Row, Stake, ValidatorSet, row_key
from flockchain.types.tx import Receipt, TxResult

MAX_LOG_BYTES = 256 * 2**20
"""Size of the log at which the next block waits for a checkpoint."""
_ROWS_AT_ONCE = 10_000
_RESTORE = "keep signer_state.json, move the rest of `data` away, and start: the node syncs from its peers"
T = TypeVar("T", bound=Canonical)
_KINDS: dict[int, type[Row]] = {table.tag: kind for kind, table in TABLES.items()}


class Outcome(Protocol):
    """What executing a block left; execution's `BlockOutcome` is one."""

    @property
    def results(self) -> Sequence[TxResult]: ...
    @property
    def receipts(self) -> Sequence[Receipt]: ...
    @property
    def write_set(self) -> Mapping[bytes, Row | None]: ...
    @property
    def results_root(self) -> bytes: ...
    @property
    def state_root(self) -> bytes: ...


class ChainStore:
    """Opens or creates the file; raises `Fault` when it is locked, damaged, unreadable or of a newer version."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        with faults(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._path.with_suffix(".lock"))
        self._engine = open_writer(self._path)
        try:
            with faults(self._path):
                self._check_schema()
                self._height = self._read_height()
        except BaseException:
            self._engine.dispose()
            self._lock.release()
            raise

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        try:
            with faults(self._path):
                self._engine.dispose()
                checkpoint(self._path, "TRUNCATE")
        finally:
            self._lock.release()

    # Reading back

    @property
    def height(self) -> int:
        """Of the newest persisted block; 0 before the first."""
        return self._height

    @property
    def genesis_bytes(self) -> bytes | None:
        """As given to `initialize`; None for a new file."""
        with faults(self._path), self._engine.begin() as connection:
            value: bytes | None = connection.scalar(select(meta.c.value).where(meta.c.name == "genesis"))
            return value

    def load_rows(self) -> Iterator[Row]:
        """Every row of the state after block `height`, in key order."""
        query = select(state_rows.c.key, state_rows.c.value).order_by(state_rows.c.key)
        with faults(self._path), self._engine.begin() as connection:
            for key, value in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query):
                yield decode_row(key, value)

    def block(self, height: int) -> Block | None:
        with faults(self._path), self._engine.begin() as connection:
            return read_block(connection, height)

    def commit(self, height: int) -> Commit | None:
        """The certificate that decided the block of this height."""
        with faults(self._path), self._engine.begin() as connection:
            return read_commit(connection, height)

    def state_root(self) -> bytes:
        """State root after block `height`, as persisted with it."""
        query = select(blocks.c.state_root).where(blocks.c.height == self._height)
        if self._height == 0:
            query = select(meta.c.value).where(meta.c.name == "genesis_state_root")
        with faults(self._path), self._engine.begin() as connection:
            root: bytes | None = connection.scalar(query)
        assert root is not None, "initialize() comes first"
        return root

    # Writing

    def initialize(self, genesis_bytes: bytes, rows: Iterable[Row]) -> None:
        """Write the state at height 0; only into a file that has none."""
        assert self.genesis_bytes is None, "a chain is initialized once"
        assert self._height == 0
        write_set = dict(sorted((row_key(row), row) for row in rows))  # in key order: appends to the table
        tree = StateTree()
        tree.update({key: encode(row) for key, row in write_set.items()})
        with faults(self._path), self._engine.begin() as connection:
            _write_meta(connection, "genesis", genesis_bytes)
            _write_meta(connection, "genesis_state_root", tree.root)
            _write_rows(connection, write_set)

    def persist_block(self, block: Block, commit: Commit, outcome: Outcome) -> None:
        """One transaction: the block, its certificate, results, receipts, changed rows and roots."""
        self.persist_blocks([(block, commit, outcome)])

    def persist_blocks(self, decided: Sequence[tuple[Block, Commit, Outcome]]) -> None:
        """Consecutive decided blocks in one transaction: one fsync for all, for catching up."""
        height = self._height
        with faults(self._path):
            if self.log_bytes > MAX_LOG_BYTES:
                checkpoint(self._path, "RESTART")
            with self._engine.begin() as connection:
                for block, commit, outcome in decided:
                    assert block.height == height + 1, f"block {block.height} does not follow {height}"
                    assert commit.height == block.height
                    assert commit.block_id == block.block_id()
                    assert len(outcome.results) == len(block.txs)
                    _write_block(connection, block, commit, outcome)
                    height = block.height
        self._height = height

    # The log

    @property
    def log_bytes(self) -> int:
        """Size of the write-ahead log file."""
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def is_checkpoint_due(self) -> bool:
        return self.log_bytes > LOG_BYTES

    def checkpoint(self) -> None:
        """Copy what the log holds into the file. Safe on another thread: it blocks neither the writer nor a reader.

        The log begins anew with the first block after a checkpoint that caught up with the writer.
        """
        with faults(self._path):
            checkpoint(self._path, "PASSIVE")

    # Opening

    def _check_schema(self) -> None:
        with self._engine.begin() as connection:
            if inspect(connection).has_table(meta.name):
                check_schema(connection, self._path)
                metadata.create_all(connection)  # adds tables that came with a later version
            else:
                metadata.create_all(connection)
                _write_meta(connection, "schema_version", str(SCHEMA_VERSION).encode())

    def _read_height(self) -> int:
        with self._engine.begin() as connection:
            return connection.scalar(select(func.max(blocks.c.height))) or 0


def check_schema(connection: Connection, path: Path) -> None:
    """Raise `Fault` for a file of another version of this program, or of another program."""
    found: bytes | None = connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version"))
    if found != str(SCHEMA_VERSION).encode():
        raise Fault(
            f"{path}: schema version {(found or b'none').decode()}, this program reads {SCHEMA_VERSION}: "
            "install the version of flockchain that wrote it, or move the file away and sync from peers"
        )


def decode_row(key: bytes, value: bytes) -> Row:
    """A row as stored; raises `Fault` when its bytes are damaged."""
    kind = _KINDS.get(key[0])
    if kind is None:
        raise Fault(f"chain.sqlite holds a row of unknown kind {key[0]}: it is of another version of flockchain")
    try:
        return decode(kind, value)
    except Malformed as error:
        raise Fault(f"chain.sqlite: the row {key.hex()} is damaged ({error}): {_RESTORE}") from error


def read_block(connection: Connection, height: int) -> Block | None:
    """The block of this height with its transactions; None when it is not stored."""
    data: bytes | None = connection.scalar(select(blocks.c.block).where(blocks.c.height == height))
    if data is None:
        return None
    within = txs.c.id.between(make_id(height, 0), make_id(height + 1, 0) - 1)
    bodies = connection.scalars(select(txs.c.bytes).where(within).order_by(txs.c.id)).all()
    return msgspec.structs.replace(_decode_stored(Block, data, height), txs=tuple(bodies))


def read_commit(connection: Connection, height: int) -> Commit | None:
    """The certificate that decided the block of this height; None when it is not stored."""
    query = select(blocks.c.commit_certificate).where(blocks.c.height == height)
    data: bytes | None = connection.scalar(query)
    return None if data is None else _decode_stored(Commit, data, height)


def _decode_stored(kind: type[T], data: bytes, height: int) -> T:
    try:
        return decode(kind, data)
    except Malformed as error:
        raise Fault(f"chain.sqlite: block {height} is damaged ({error}): {_RESTORE}") from error


def _write_meta(connection: Connection, name: str, value: bytes) -> None:
    connection.execute(insert(meta).values(name=name, value=value))


def _write_block(connection: Connection, block: Block, commit: Commit, outcome: Outcome) -> None:
    connection.execute(_INSERT_BLOCK, block_values(block, commit, outcome))
    _write_many(connection, _INSERT_TX, [tx_values(block, i, r) for i, r in enumerate(outcome.results)])
    _write_many(connection, _INSERT_RECEIPT, [receipt_values(block, i, r) for i, r in enumerate(outcome.receipts)])
    _write_rows(connection, outcome.write_set)


def block_values(block: Block, commit: Commit, outcome: Outcome) -> dict[str, Any]:
    """By column, in the order of the table's columns."""
    return {
        "height": block.height,
        "block_id": block.block_id(),
        "time_ms": block.header.time_ms,
        "tx_count": len(block.txs),
        "block": encode(msgspec.structs.replace(block, txs=())),
        "commit_certificate": encode(commit),
        "results_root": outcome.results_root,
        "state_root": outcome.state_root,
    }


def tx_values(block: Block, position: int, result: TxResult) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    data, tx_id = block.txs[position], make_id(block.height, position)
    assert result.hash == sha256(data)
    return tx_id, result.hash, result.kind, result.sender, result.code, result.message, result.fee_uflk, data


def receipt_values(block: Block, position: int, receipt: Receipt) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    receipt_id, body = make_id(block.height, position), encode(receipt)
    return receipt_id, receipt.kind, receipt.account, receipt.task, receipt.round, receipt.amount_uflk, body


def _write_rows(connection: Connection, write_set: Mapping[bytes, Row | None]) -> None:
    changed = [(key, compute_ref(row), encode(row)) for key, row in write_set.items() if row is not None]
    for row in write_set.values():
        if isinstance(row, ValidatorSet):
            validator_sets.write_set(connection, row)
    _write_many(connection, _UPSERT_ROW, changed)
    _write_many(connection, _DELETE_ROW, [(key,) for key, row in write_set.items() if row is None])


def _write_many(connection: Connection, sql: str, values: list[tuple[Any, ...]]) -> None:
    """The driver's executemany. Core's own wraps each value once more: a third of a block's time."""
    if values:
        connection.exec_driver_sql(sql, values)


def _compile(statement: Insert | Delete) -> str:
    return str(statement.compile(dialect=sqlite.dialect()))


def _compile_upsert() -> str:
    upsert = insert(state_rows)
    new = upsert.excluded
    return _compile(upsert.on_conflict_do_update(index_elements=["key"], set_={"ref": new.ref, "value": new.value}))


_INSERT_BLOCK = insert(blocks)
_INSERT_TX = _compile(insert(txs))
_INSERT_RECEIPT = _compile(insert(receipts))
_UPSERT_ROW = _compile_upsert()
_DELETE_ROW = _compile(delete(state_rows).where(state_rows.c.key == bindparam("removed")))


def compute_ref(row: Row) -> str | None:
    """The second way to find a row of this kind, if it has one."""
    return row.target if isinstance(row, Stake) else None
