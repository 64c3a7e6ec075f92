"""The five ports through which every side effect goes. Each has a real and a simulated implementation.

    Clock    time and timers          SystemClock (clock.py)      SimClock       (tests/support)
    Network  peers and messages       TcpNetwork (net/)           SimNetwork
    Store    decided blocks, rows     ChainStore (store/)         MemoryStore
    Signer   the validator's key      PersistedSigner (signer.py) MemorySigner
    Blobs    adapter files            BlobStore (store/)          MemoryBlobs

One suite runs over both: tests/node/test_ports.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from flockchain.execution.block import BlockOutcome
from flockchain.types.chain import Block, Commit, ProposalBody, SignedProposal, SignedVote, VoteBody
from flockchain.types.light import LightBlock
from flockchain.types.rows import Row
from flockchain.types.tx import SignedTx, Tx

PeerId = bytes
"""Address of a peer's node key (20 bytes), proven in the handshake."""


class Channel(IntEnum):
    """Traffic classes; a lower number is sent first when a connection is busy."""

    CONSENSUS = 1
    SYNC = 2
    MEMPOOL = 3
    BLOBS = 4


@dataclass(frozen=True, slots=True)
class PeerConnected:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class PeerLost:
    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """One whole message of a channel, authenticated and within the channel's size limit."""

    peer: PeerId
    channel: Channel
    message: bytes


NetworkEvent = PeerConnected | PeerLost | Received


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch."""

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        """Run `action` on the loop once; the returned function cancels it."""


class Network(Protocol):
    """Delivers `NetworkEvent`s to the handler given at start; never calls it re-entrantly from `send`."""

    def peers(self) -> list[PeerId]: ...

    def send(self, peer: PeerId, channel: Channel, message: bytes) -> bool:
        """Queue a message; False when the peer is gone or its queue for this channel is full."""

    def broadcast(self, channel: Channel, message: bytes, except_peer: PeerId | None = None) -> None: ...

    def penalize(self, peer: PeerId, points: int, reason: str) -> None:
        """Count misbehaviour; at 100 points the peer is disconnected and banned for a while."""


Decided = tuple[Block, Commit, BlockOutcome]
"""A decided block, its commit, and what executing it left."""


class Store(Protocol):
    """Decided blocks and the rows of the state after the newest of them. One writer."""

    @property
    def height(self) -> int:
        """Newest persisted height; 0: genesis only."""

    def block(self, height: int) -> Block | None: ...

    def commit(self, height: int) -> Commit | None:
        """The precommits that decided `height`."""

    @property
    def first_height(self) -> int:
        """Lowest height whose block is held; 0 before the first block."""

    def light_block(self, height: int) -> LightBlock | None:
        """Header, commit and the validators of this height and the next; None when they are not held."""

    def load_rows(self) -> Iterator[Row]: ...

    def persist_blocks(self, decided: Sequence[Decided]) -> None:
        """Everything of these consecutive blocks, atomically and durably; raises `Fault`."""

    def close(self) -> None: ...


class Signer(Protocol):
    """Never signs two values for one (height, round, step): its state is durable before a signature leaves."""

    @property
    def address(self) -> bytes: ...

    @property
    def public_key(self) -> bytes: ...

    def sign_vote(self, body: VoteBody) -> SignedVote:
        """The signature given before, if this very vote was signed; raises `Refused` for a conflicting one."""

    def sign_proposal(self, body: ProposalBody) -> SignedProposal:
        """Like `sign_vote`."""

    def sign_tx(self, tx: Tx) -> SignedTx:
        """A transaction of the account that the validator's own key has; for evidence."""

    def reveal_beacon(self, head: bytes) -> bytes | None:
        """The preimage of this validator's beacon head; None when the head is not of its chain."""


class Blobs(Protocol):
    """Adapter files by Merkle root. Only roots that were announced by `expect` can be written."""

    def expect(self, root: bytes, size_bytes: int) -> None:
        """Allow `root` to be written; raises `Refused` when it is too large."""

    def has(self, root: bytes) -> bool:
        """Whether the whole file is here."""

    def missing(self, root: bytes) -> Sequence[int]:
        """Chunks of an expected file that are not here yet."""

    def put_chunk(self, root: bytes, index: int, data: bytes, proof: Iterable[bytes]) -> None:
        """Keep a chunk after checking it against the root; raises `Refused`."""

    def chunk(self, root: bytes, index: int) -> tuple[bytes, Sequence[bytes]]:
        """A chunk of a whole file with its Merkle proof; raises `Refused` when it is not here."""
