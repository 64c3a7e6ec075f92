"""Which parameters and protocol version a block follows, from the rows that changes leave."""

from flockchain.store.reader import Snapshot
from flockchain.types.rows import Chain, Epoch


def find_epoch(snapshot: Snapshot, height: int) -> Epoch:
    """That of a block, or of the next one; a chain that never changed has one epoch, that of its genesis."""
    begun = [epoch for epoch in snapshot.all_rows(Epoch) if epoch.since_height <= height]
    return begun[-1] if begun else _first_epoch(snapshot.chain())


def _first_epoch(chain: Chain) -> Epoch:
    return Epoch(0, 1, 1, 0, chain.params)
