"""Which blocks a node forgets: those below `retain_blocks`, a few with each new block, so that no block is slow.

Kept whatever the setting: blocks younger than `unbonding_ms` (evidence age and trusting period lie below it, so
offences can be shown and light clients served), blocks from the oldest kept snapshot on, and the newest `LEAST_BLOCKS`.
"""

from sqlalchemy import Connection, delete, func, select

from flockchain.store.tables import blocks, make_id, receipts, txs, validator_sets
from flockchain.types.rows import Chain

LEAST_BLOCKS = 100
"""Peers that lag a little are helped from these."""
STEP_BLOCKS = 16
"""Forgotten with one new block at most; several blocks persisted together allow twice as many as they are."""
STEP_TXS = 2_000
"""In the forgotten blocks together, unless the first alone has more: one new block pays for about one old."""


def prune_step(
    connection: Connection, chain: Chain, retain_blocks: int, snapshot_height: int | None, new_blocks: int = 1
) -> int:
    """Forget some old blocks with their transactions, results and receipts; returns how many.

    `chain` is the newest row; `retain_blocks` 0 keeps everything; `snapshot_height` is that of the oldest snapshot.
    """
    if not retain_blocks:
        return 0
    end = chain.height - max(retain_blocks, LEAST_BLOCKS) + 1
    if snapshot_height is not None:
        end = min(end, snapshot_height)
    oldest_ms = chain.time_ms - chain.params.stake.unbonding_ms
    candidates = (
        select(blocks.c.height, blocks.c.tx_count)
        .where((blocks.c.height < end) & (blocks.c.time_ms < oldest_ms))
        .order_by(blocks.c.height)
        .limit(max(STEP_BLOCKS, 2 * new_blocks))
    )
    forgotten, tx_count = 0, 0
    last = 0
    for height, count in connection.execute(candidates):
        tx_count += count
        if forgotten and tx_count > STEP_TXS:
            break
        forgotten, last = forgotten + 1, height
    if forgotten:
        forget_blocks(connection, last)
    return forgotten


def forget_blocks(connection: Connection, last: int) -> None:
    """Delete all that is held of the heights up to `last`, and validator sets that sign none of the others."""
    end = make_id(last + 1, 0)
    connection.execute(delete(blocks).where(blocks.c.height <= last))
    connection.execute(delete(txs).where(txs.c.id < end))
    connection.execute(delete(receipts).where(receipts.c.id < end))
    first_needed = select(func.max(validator_sets.c.height)).where(validator_sets.c.height <= last + 1)
    connection.execute(delete(validator_sets).where(validator_sets.c.height < first_needed.scalar_subquery()))
