"""Tables of `data/chain.sqlite`, in SQLAlchemy Core. The schema is described here and nowhere else.

Times are header times in ms. A position counts a block's transactions, or its receipts, from 0; an id is
`height * 2**20 + position`, so that ids sort as history does and are the same on every node.
"""

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table, Text

SCHEMA_VERSION = 2
"""Raised with every change of a table, by a step in `migrations/`."""
POSITION_BITS = 20

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

state_rows = Table(
    "state_rows",
    metadata,
    Column("key", LargeBinary, primary_key=True),  # `types.rows.row_key`: its first byte is the kind of row
    Column("ref", Text),  # a second way to find it, such as Stake.target
    Column("value", LargeBinary, nullable=False),  # canonical bytes of the row
    sqlite_with_rowid=False,
)
Index("state_rows_by_ref", state_rows.c.ref, state_rows.c.key, sqlite_where=state_rows.c.ref.is_not(None))

blocks = Table(
    "blocks",
    metadata,
    Column("height", Integer, primary_key=True),
    Column("block_id", LargeBinary, nullable=False),
    Column("time_ms", Integer, nullable=False),
    Column("tx_count", Integer, nullable=False),
    Column("block", LargeBinary, nullable=False),  # canonical bytes of the block without its transactions
    Column("commit_certificate", LargeBinary, nullable=False),  # of this very block
    Column("results_root", LargeBinary, nullable=False),
    Column("state_root", LargeBinary, nullable=False),  # after this block
)

validator_sets = Table(
    "validator_sets",
    metadata,
    Column("height", Integer, primary_key=True),  # the first that it signs; it goes on until the next one begins
    Column("members", LargeBinary, nullable=False),  # canonical bytes of a tuple of `types.chain.Validator`
)

txs = Table(
    "txs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("sender", LargeBinary, nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("fee_uflk", Integer, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
)
Index("txs_by_hash", txs.c.hash)

receipts = Table(
    "receipts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account", LargeBinary, nullable=False),
    Column("task", Integer, nullable=False),
    Column("round", Integer, nullable=False),
    Column("amount_uflk", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("receipts_by_account", receipts.c.account)
Index("receipts_by_kind", receipts.c.kind)
Index("receipts_by_round", receipts.c.task, receipts.c.round, sqlite_where=receipts.c.task > 0)


def make_id(height: int, position: int) -> int:
    """Id of a transaction or receipt."""
    assert 0 <= position < 1 << POSITION_BITS
    return height << POSITION_BITS | position


def height_of(record_id: int) -> int:
    """Height in an id."""
    return record_id >> POSITION_BITS


def position_of(record_id: int) -> int:
    """Position in an id."""
    return record_id & ((1 << POSITION_BITS) - 1)
