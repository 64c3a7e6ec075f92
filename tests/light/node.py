"""A node that serves a `LightChain` over REST: its own store, ledger and API; only consensus and peers are missing."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from api.app import create_app
from api.events import EventHub
from api.node_view import MempoolView, PeerView
from flockchain.client import wait_until
from flockchain.codec import encode
from flockchain.errors import Refused
from flockchain.execution.genesis import build_state
from flockchain.node.ledger import Ledger as NodeLedger
from flockchain.store.blob_store import BlobStore
from flockchain.store.chain_store import ChainStore
from flockchain.store.reader import Reader
from flockchain.types.light import ProvenRow
from tests.light.chain import LightChain


class ServingNode:
    """Implements `NodeView`; `follow` applies the chain's blocks that it does not hold yet."""

    def __init__(self, folder: Path, chain: LightChain) -> None:
        self._chain = chain
        self.store = ChainStore(folder / "chain.sqlite")
        if self.store.genesis_bytes is None:
            genesis = chain.ledger.genesis
            self.store.initialize(encode(genesis), build_state(genesis).rows())
        self.ledger = NodeLedger(self.store)
        self.reader = Reader(folder / "chain.sqlite")
        self.events = EventHub()
        self.is_catching_up = False
        self.validator_address: bytes | None = None
        self.app = create_app(self.reader, self, BlobStore(folder / "blobs"))
        self.follow()

    def follow(self) -> None:
        for block, commit in zip(self._chain.ledger.blocks, self._chain.ledger.commits[1:], strict=True):
            if block.height > self.ledger.height:
                self.ledger.apply(block, commit)

    def close(self) -> None:
        self.reader.close()
        self.store.close()

    async def prove(self, key: bytes) -> ProvenRow:
        return self.ledger.prove(key)

    async def submit_all(self, txs: object) -> list[bytes | Refused]:
        raise AssertionError("nobody sends transactions here")

    def find_pending(self, tx_hash: bytes) -> bytes | None:
        return None

    def peers(self) -> list[PeerView]:
        return []

    def mempool(self) -> MempoolView:
        return MempoolView(0, 0, 0, 0, 0)

    def health(self) -> str | None:
        return None


@contextlib.contextmanager
def serving(node: ServingNode) -> Iterator[str]:
    """Its address, while a thread serves it on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(node.app, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        assert wait_until(lambda: server.started, timeout_s=10)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        node.close()
