"""What the API asks of the running node. The node implements it; tests have their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from api.events import EventHub
from flockchain.errors import Refused
from flockchain.types.light import ProvenRow


@dataclass(frozen=True, slots=True)
class PeerView:
    address: bytes
    """Of its node key."""
    endpoint: str
    """host:port as connected."""
    height: int
    """It last reported; 0 when it has not."""
    is_outbound: bool


@dataclass(frozen=True, slots=True)
class MempoolView:
    txs: int
    due_txs: int
    """In the lane of drawn members."""
    size_bytes: int
    max_txs: int
    max_bytes: int


class NodeView(Protocol):
    @property
    def events(self) -> EventHub:
        """On which the node publishes each block after persisting it."""

    @property
    def is_catching_up(self) -> bool:
        """Whether it knows of decided blocks that it does not hold yet."""

    @property
    def validator_address(self) -> bytes | None:
        """Of its consensus key; None for a full node."""

    async def submit_all(self, txs: Sequence[bytes]) -> list[bytes | Refused]:
        """Take transactions into the mempool and gossip them; for each, in order, its hash or the refusal."""

    async def prove(self, key: bytes) -> ProvenRow:
        """The row under a state key, or its absence, as the newest header proves it; raises `Refused`."""

    def find_pending(self, tx_hash: bytes) -> bytes | None:
        """Bytes of a transaction that waits in the mempool."""

    def peers(self) -> list[PeerView]: ...

    def mempool(self) -> MempoolView: ...

    def health(self) -> str | None:
        """Why the node cannot do its work now; None when it can."""
