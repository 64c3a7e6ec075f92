"""A node for the API's tests: a real store, reader, blob store and event hub; only the mempool is a dictionary."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI

from api.app import create_app
from api.events import EventHub
from api.node_view import MempoolView, PeerView
from flockchain.codec import decode, encode
from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.store.blob_store import BlobStore
from flockchain.store.chain_store import ChainStore
from flockchain.store.reader import Reader
from flockchain.types.light import ProvenRow
from flockchain.types.rows import Row, row_key
from flockchain.types.tx import SignedTx
from tests.store.history import BOB, GENESIS_BYTES, VALIDATOR, Decided, History


class Node:
    """Implements `NodeView`; `produce` makes and publishes a block."""

    def __init__(self, folder: Path) -> None:
        self.history = History()
        self.store = ChainStore(folder / "chain.sqlite")
        self.store.initialize(GENESIS_BYTES, self.history.genesis_rows)
        self.reader = Reader(folder / "chain.sqlite")
        self.blobs = BlobStore(folder / "blobs")
        self.events = EventHub()
        self.is_catching_up = False
        self.validator_address: bytes | None = VALIDATOR
        self.pending: dict[bytes, bytes] = {}
        self.reason: str | None = None
        self.broken = False
        self.decided: Decided | None = None
        self.app: FastAPI = create_app(self.reader, self, self.blobs)

    def produce(self, *rows: Row, transfers: int = 2) -> Decided:
        self.rows_before, self.tree_before = dict(self.history.rows), self.history.tree.copy()
        self.decided = decided = self.history.next_block(transfers=transfers, extra={row_key(row): row for row in rows})
        self.store.persist_block(*decided)
        self.events.publish_block(decided[0], decided[2])
        return decided

    def close(self) -> None:
        self.reader.close()
        self.store.close()

    async def submit_all(self, txs: Sequence[bytes]) -> list[bytes | Refused]:
        answers: list[bytes | Refused] = []
        for data in txs:
            try:
                answers.append(self._submit(data))
            except Refused as refusal:
                answers.append(refusal)
        return answers

    def _submit(self, tx_bytes: bytes) -> bytes:
        if self.broken:
            raise RuntimeError("a bug of ours")
        tx = decode(SignedTx, tx_bytes).tx
        if tx.chain_id != "test-1":
            raise Refused("wrong-chain", f"the transaction is for chain {tx.chain_id!r}, this is 'test-1'")
        if sha256(tx_bytes) in self.pending:
            raise Refused("already-waiting", "this transaction already waits for a block")
        if tx.nonce < self.history.nonce:
            raise Refused("spent-nonce", f"nonce {tx.nonce} was used, the next is {self.history.nonce}")
        if len(self.pending) >= 3:
            raise Refused("mempool-full", "3 transactions wait, the most this node keeps: pay more or try later")
        self.pending[sha256(tx_bytes)] = tx_bytes
        return sha256(tx_bytes)

    async def prove(self, key: bytes) -> ProvenRow:
        if not self.decided:
            raise Refused("not-proven-yet", "no block proves a state yet")
        block, commit, _ = self.decided
        row = self.rows_before.get(key)
        value = None if row is None else encode(row)
        return ProvenRow(key, value, self.tree_before.prove(key), block.header, commit)

    def find_pending(self, tx_hash: bytes) -> bytes | None:
        return self.pending.get(tx_hash)

    def peers(self) -> list[PeerView]:
        return [PeerView(BOB, "127.0.0.1:1", 3, True)]

    def mempool(self) -> MempoolView:
        return MempoolView(len(self.pending), 0, sum(map(len, self.pending.values())), 3, 1_000)

    def health(self) -> str | None:
        return self.reason


@contextmanager
def running_node(folder: Path) -> Iterator[Node]:
    node = Node(folder)
    try:
        yield node
    finally:
        node.close()
