"""A stored chain behind the real REST interface: no node runs, so nothing new is decided."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from api.app import create_app
from api.events import EventHub
from api.node_view import MempoolView, PeerView
from flockchain.errors import Refused
from flockchain.node.api_server import ApiServer
from flockchain.store.blob_store import BlobStore
from flockchain.store.reader import Reader


class StoppedNode:
    """Implements `NodeView`."""

    def __init__(self) -> None:
        self.events = EventHub()
        self.is_catching_up = False
        self.validator_address: bytes | None = None

    async def submit(self, tx_bytes: bytes) -> bytes:
        raise Refused("stopped", "this chain is only read")

    def find_pending(self, tx_hash: bytes) -> bytes | None:
        return None

    def peers(self) -> list[PeerView]:
        return []

    def mempool(self) -> MempoolView:
        return MempoolView(0, 0, 0, 0, 0)

    def health(self) -> str | None:
        return None


@contextmanager
def serve_home(home: Path) -> Iterator[str]:
    """Address of a REST server over the chain and the adapters of `home`."""
    view, blobs = StoppedNode(), BlobStore(home / "data" / "blobs")
    with closing(Reader(home / "data" / "chain.sqlite")) as reader:
        server = ApiServer("127.0.0.1:0", view, lambda: create_app(reader, view, blobs))  # type: ignore[arg-type]
        server.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.stop()
