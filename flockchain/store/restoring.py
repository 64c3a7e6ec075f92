"""A chain's file that does not begin at its first block: filled from a snapshot, or set back to a lower height."""

from collections.abc import Iterable
from itertools import islice

from sqlalchemy import Connection, delete

from flockchain.errors import Refused
from flockchain.state_tree import StateTree
from flockchain.store import validator_sets
from flockchain.store.reading import decode_row
from flockchain.store.tables import blocks, make_id, meta, receipts, state_rows, txs
from flockchain.store.tables import validator_sets as sets_table
from flockchain.store.writing import Outcome, write_block, write_meta, write_rows
from flockchain.types.rows import Row, ValidatorSet, row_key
from flockchain.types.snapshot import KeyValue, SnapshotHead

_ROWS_AT_ONCE = 10_000


def restore_snapshot(
    connection: Connection,
    genesis_bytes: bytes,
    genesis_state_root: bytes,
    head: SnapshotHead,
    outcome: Outcome,
    rows: Iterable[KeyValue],
) -> None:
    """Replace the state of a file without blocks; refuses (``wrong-state-root``) rows that are not `outcome`'s state.

    `outcome` is what `head` says that its block left, without a write set.
    """
    assert not outcome.write_set
    connection.execute(delete(state_rows))
    connection.execute(delete(sets_table))
    connection.execute(delete(meta).where(meta.c.name.in_(("genesis", "genesis_state_root"))))
    write_meta(connection, "genesis", genesis_bytes)
    write_meta(connection, "genesis_state_root", genesis_state_root)
    tree = StateTree()
    remaining = iter(rows)
    sets: list[ValidatorSet] = []
    while batch := list(islice(remaining, _ROWS_AT_ONCE)):
        tree.update(dict(batch))
        decoded = [(key, decode_row(key, value)) for key, value in batch]
        sets += [row for _, row in decoded if isinstance(row, ValidatorSet)]
        write_rows(connection, decoded)
    if tree.root != outcome.state_root:
        raise Refused(
            "wrong-state-root",
            f"the rows of the snapshot have the state root {tree.root.hex()}, the chain has "
            f"{outcome.state_root.hex()} after block {head.block.height}: nothing was restored",
        )
    for row in sorted(sets, key=lambda row: row.height):
        validator_sets.write_set(connection, row)
    write_block(connection, head.block, head.commit, outcome)


def roll_back(connection: Connection, height: int, rows: Iterable[Row]) -> None:
    """Forget every block above `height`, and put the state after it in the place of the newest."""
    start = make_id(height + 1, 0)
    connection.execute(delete(blocks).where(blocks.c.height > height))
    connection.execute(delete(txs).where(txs.c.id >= start))
    connection.execute(delete(receipts).where(receipts.c.id >= start))
    connection.execute(delete(sets_table).where(sets_table.c.height > height + 2))
    connection.execute(delete(state_rows))
    remaining = iter(rows)
    while batch := list(islice(remaining, _ROWS_AT_ONCE)):
        write_rows(connection, [(row_key(row), row) for row in batch])
