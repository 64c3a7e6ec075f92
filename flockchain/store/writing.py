"""What a decided block becomes in the tables. Everything runs within a transaction of the one writer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection, Delete, Insert, bindparam, delete
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert

from flockchain.codec import encode
from flockchain.crypto import sha256
from flockchain.store import validator_sets
from flockchain.store.tables import blocks, make_id, meta, receipts, state_rows, txs
from flockchain.types.chain import Block, Commit
from flockchain.types.rows import Delegation, Row, Stake, Unbonding, ValidatorSet
from flockchain.types.tx import Receipt, TxResult


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


def write_meta(connection: Connection, name: str, value: bytes) -> None:
    connection.execute(insert(meta).values(name=name, value=value))


def write_block(connection: Connection, block: Block, commit: Commit, outcome: Outcome) -> None:
    connection.execute(_INSERT_BLOCK, block_values(block, commit, outcome))
    _write_many(connection, _INSERT_TX, [tx_values(block, i, r) for i, r in enumerate(outcome.results)])
    _write_many(connection, _INSERT_RECEIPT, [receipt_values(block, i, r) for i, r in enumerate(outcome.receipts)])
    write_changes(connection, outcome.write_set)


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


def write_changes(connection: Connection, write_set: Mapping[bytes, Row | None]) -> None:
    """Rows that a block changed; its next validator set is also kept for light clients."""
    for row in write_set.values():
        if isinstance(row, ValidatorSet):
            validator_sets.write_set(connection, row)
    write_rows(connection, ((key, row) for key, row in write_set.items() if row is not None))
    _write_many(connection, _DELETE_ROW, [(key,) for key, row in write_set.items() if row is None])


def write_rows(connection: Connection, rows: Iterable[tuple[bytes, Row]]) -> None:
    """Rows of the state by key."""
    _write_many(connection, _UPSERT_ROW, [(key, compute_ref(row), encode(row)) for key, row in rows])


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
    if isinstance(row, Delegation):
        return make_account_ref(row.delegator)
    if isinstance(row, Unbonding):
        return make_account_ref(row.owner)
    return row.target if isinstance(row, Stake) else None


def make_account_ref(address: bytes) -> str:
    """The second way to find what one account delegated, and what of its stake is on its way out."""
    return f"account:{address.hex()}"
