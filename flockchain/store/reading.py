"""Stored bytes as values: rows, blocks, certificates, light blocks. Shared by the writer and the readers."""

from typing import TypeVar

import msgspec
from sqlalchemy import Connection, select

from flockchain.codec import Canonical, decode
from flockchain.errors import Fault, Malformed
from flockchain.store.tables import blocks, make_id, txs
from flockchain.store.validator_sets import read_set
from flockchain.types.chain import Block, Commit
from flockchain.types.light import LightBlock
from flockchain.types.rows import TABLES, Row

_RESTORE = "keep signer_state.json, move the rest of `data` away, and start: the node syncs from its peers"
T = TypeVar("T", bound=Canonical)
_KINDS: dict[int, type[Row]] = {table.tag: kind for kind, table in TABLES.items()}


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


def read_light_block(connection: Connection, height: int) -> LightBlock | None:
    """Header, commit and the sets of this height and the next; None when this file lacks one of them."""
    query = select(blocks.c.block, blocks.c.commit_certificate).where(blocks.c.height == height)
    row = connection.execute(query).first()
    members = read_set(connection, height)
    following = read_set(connection, height + 1)
    if row is None or members is None or following is None:
        return None
    header = _decode_stored(Block, row.block, height).header
    return LightBlock(header, _decode_stored(Commit, row.commit_certificate, height), members, following)


def _decode_stored(kind: type[T], data: bytes, height: int) -> T:
    try:
        return decode(kind, data)
    except Malformed as error:
        raise Fault(f"chain.sqlite: block {height} is damaged ({error}): {_RESTORE}") from error
