"""The five ports through which every side effect goes. Each has a real and a simulated implementation."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

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
