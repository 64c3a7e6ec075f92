"""Every stored value exactly as it lies in the file, and what it should be: for `flockchain verify`.

A `Reader` answers questions and trusts what it finds; an auditor reads every column of every row and trusts nothing.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, func, or_, select

from flockchain.codec import decode, encode
from flockchain.errors import Refused
from flockchain.store.read_only import ReadOnlyFile
from flockchain.store.tables import blocks, height_of, make_id, meta, receipts, state_rows, txs
from flockchain.store.writing import Outcome, block_values, compute_ref, receipt_values, tx_values
from flockchain.types.chain import Block, Commit
from flockchain.types.rows import Row
from flockchain.types.snapshot import SnapshotHead
from flockchain.types.tx import Receipt, TxResult

RecordRow = tuple[Any, ...]
_ROWS_AT_ONCE = 10_000


class Records(ReadOnlyFile["RecordSnapshot"]):
    """Raw rows for the auditor; see `ReadOnlyFile`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, RecordSnapshot)


class RecordSnapshot:
    """Raw rows at one moment; tuples are in the order of the table's columns."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def meta(self) -> dict[str, bytes]:
        found = self._connection.execute(select(meta.c.name, meta.c.value)).all()
        return {row.name: row.value for row in found}

    def tip(self) -> int:
        """Height of the newest block; 0 before the first."""
        return self._connection.scalar(select(func.max(blocks.c.height))) or 0

    def block(self, height: int) -> RecordRow | None:
        row = self._connection.execute(select(blocks).where(blocks.c.height == height)).first()
        return None if row is None else tuple(row)

    def txs(self, height: int) -> list[RecordRow]:
        return self._of_height(txs, height)

    def receipts(self, height: int) -> list[RecordRow]:
        return self._of_height(receipts, height)

    def first(self) -> int:
        """Lowest height whose block is held; 0 before the first block."""
        return self._connection.scalar(select(func.min(blocks.c.height)).where(blocks.c.height > 0)) or 0

    def state_root(self, height: int) -> bytes:
        """As stored with the block of this height."""
        found: bytes | None = self._connection.scalar(select(blocks.c.state_root).where(blocks.c.height == height))
        assert found is not None, f"block {height} is held"
        return found

    def state_bytes(self) -> int:
        """Of all keys and values of the state."""
        size = func.length(state_rows.c.key) + func.length(state_rows.c.value)
        return self._connection.scalar(select(func.sum(size))) or 0

    def find_stray_heights(self, tip: int) -> list[tuple[str, int]]:
        """(table, height) of records that belong to no height in 1..tip."""
        found: list[tuple[str, int]] = []
        for table in (txs, receipts):
            outside = or_(table.c.id < make_id(1, 0), table.c.id >= make_id(tip + 1, 0))
            found += [(table.name, height_of(i)) for i in self._connection.scalars(select(table.c.id).where(outside))]
        stray = select(blocks.c.height).where(blocks.c.height < 1)
        return found + [(blocks.name, height) for height in self._connection.scalars(stray)]

    def state_rows(self) -> Iterator[RecordRow]:
        """(key, ref, value) in key order."""
        query = select(state_rows.c.key, state_rows.c.ref, state_rows.c.value).order_by(state_rows.c.key)
        for row in self._connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query):
            yield tuple(row)

    def _of_height(self, table: Table, height: int) -> list[RecordRow]:
        within = table.c.id.between(make_id(height, 0), make_id(height + 1, 0) - 1)
        return [tuple(row) for row in self._connection.execute(select(table).where(within).order_by(table.c.id))]


def read_head(snapshot: RecordSnapshot, height: int | None = None) -> SnapshotHead:
    """A block with its certificate and all it left (default: the newest); raises `Refused` when it is not held."""
    height = snapshot.tip() if height is None else height
    record = snapshot.block(height)
    if record is None:
        raise Refused("no-block", f"block {height} is not held: a snapshot is taken after a decided block")
    tx_records = snapshot.txs(height)
    bare, commit = decode(Block, record[4]), decode(Commit, record[5])
    block = msgspec.structs.replace(bare, txs=tuple(row[7] for row in tx_records))
    results = tuple(TxResult(*row[1:7]) for row in tx_records)
    receipts = tuple(decode(Receipt, row[6]) for row in snapshot.receipts(height))
    return SnapshotHead(block, commit, results, receipts)


def expect_block(block: Block, commit: Commit, outcome: Outcome) -> RecordRow:
    """What `ChainStore` writes into `blocks`."""
    return tuple(block_values(block, commit, outcome).values())


def expect_txs(block: Block, outcome: Outcome) -> list[RecordRow]:
    return [tx_values(block, i, result) for i, result in enumerate(outcome.results)]


def expect_receipts(block: Block, outcome: Outcome) -> list[RecordRow]:
    return [receipt_values(block, i, receipt) for i, receipt in enumerate(outcome.receipts)]


def expect_state_rows(rows: Mapping[bytes, Row]) -> Iterator[RecordRow]:
    """In the order of `rows`, which is key order."""
    for key, row in rows.items():
        yield key, compute_ref(row), encode(row)


def name_columns(table: str) -> list[str]:
    """Columns of `blocks`, `txs`, `receipts` or `state_rows`, in order."""
    tables = {each.name: each for each in (blocks, txs, receipts, state_rows)}
    return [column.name for column in tables[table].columns]
