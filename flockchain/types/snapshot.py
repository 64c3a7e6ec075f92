"""A snapshot: the state after one block in chunks, and that block with all it left. Made, sent and restored as this."""

from typing import Annotated

from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.types.chain import Block, Commit
from flockchain.types.ids import UInt
from flockchain.types.light import MAX_KEY_BYTES, MAX_ROW_BYTES
from flockchain.types.tx import Receipt, TxResult

MAX_DEPTH = 14
MAX_CHUNKS = 2**MAX_DEPTH
MAX_CHUNK_BYTES = 6 * 2**20
"""Of a chunk, and of a head: one message between nodes."""
MAX_CHUNK_ROWS = 2**17

SubtreeTop = Annotated[bytes, Meta(max_length=64)]
"""Of one subtree of the state tree: empty (no key), 64 bytes (key hash, value hash: one key), 32 bytes (its hash)."""
KeyValue = tuple[
    Annotated[bytes, Meta(min_length=1, max_length=MAX_KEY_BYTES)], Annotated[bytes, Meta(max_length=MAX_ROW_BYTES)]
]
"""State key and canonical bytes of a row."""


class StateManifest(Canonical, frozen=True):
    """What the chunks of one state hash to; joined, the tops are the state root."""

    height: UInt
    """Of the block after which this was the state."""
    depth: Annotated[int, Meta(ge=0, le=MAX_DEPTH)]
    """A chunk holds the rows whose key hash begins with the same `depth` bits; its index is those bits."""
    tops: Annotated[tuple[SubtreeTop, ...], Meta(min_length=1, max_length=MAX_CHUNKS)]


class StateChunk(Canonical, frozen=True):
    """All rows of one subtree, by ascending key."""

    rows: Annotated[tuple[KeyValue, ...], Meta(max_length=MAX_CHUNK_ROWS)]


class SnapshotHead(Canonical, frozen=True):
    """The block after which the state was taken, so that the chain can go on from it."""

    block: Block
    commit: Commit
    results: tuple[TxResult, ...]
    receipts: tuple[Receipt, ...]
