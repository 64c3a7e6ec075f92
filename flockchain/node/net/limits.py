"""Every number that bounds a peer: sizes, queues, rates, waits, counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from flockchain.node.net.framing import CONTROL_CHANNEL, EXCHANGE_CHANNEL
from flockchain.node.ports import Channel

KIB = 1024
MIB = 1024 * KIB
MESSAGE_COST_BYTES = 256
"""Counted against a channel's rate beside the message's own bytes, so that tiny messages are bounded too."""


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    max_message_bytes: int
    max_queue_bytes: int
    max_queue_messages: int
    rate_bytes_per_s: int
    burst_bytes: int
    """May be sent at once after a pause. Senders keep to rate and burst; receivers enforce them with a quarter more."""


DEFAULT_CHANNELS: Mapping[int, ChannelLimits] = MappingProxyType(
    {
        CONTROL_CHANNEL: ChannelLimits(512, 16 * KIB, 64, 64 * KIB, 32 * KIB),
        Channel.CONSENSUS: ChannelLimits(5 * MIB, 20 * MIB, 8_192, 64 * MIB, 16 * MIB),
        Channel.SYNC: ChannelLimits(8 * MIB, 24 * MIB, 1_024, 64 * MIB, 16 * MIB),
        Channel.MEMPOOL: ChannelLimits(512 * KIB, 8 * MIB, 8_192, 16 * MIB, 8 * MIB),
        Channel.BLOBS: ChannelLimits(384 * KIB, 6 * MIB, 256, 64 * MIB, 8 * MIB),
        EXCHANGE_CHANNEL: ChannelLimits(4 * KIB, 8 * KIB, 2, 1 * KIB, 8 * KIB),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLimits:
    channels: Mapping[int, ChannelLimits] = field(default_factory=lambda: DEFAULT_CHANNELS)
    max_inbound_peers: int = 64
    """Peers named with their identity in the persistent peers are let in beyond it."""
    max_outbound_peers: int = 32
    max_inbound_handshakes: int = 64
    """Inbound connections whose handshake is under way."""
    max_connections_per_ip: int = 8
    """Inbound, handshakes included."""
    is_loopback_exempt: bool = True
    """Connections from this machine are not counted, nor banned, by their IP."""
    connect_timeout_s: float = 5.0
    handshake_timeout_s: float = 5.0
    frame_timeout_s: float = 10.0
    """A frame that has begun to arrive is whole within this time (slow loris)."""
    write_timeout_s: float = 20.0
    """A peer that takes none of our bytes for so long is dropped."""
    ping_interval_s: float = 10.0
    idle_timeout_s: float = 30.0
    probe_timeout_s: float = 3.0
    """A connection whose peer seems to have dialled anew answers a ping within this time."""
    close_timeout_s: float = 1.0
    """For the goodbye to leave."""
    first_redial_s: float = 0.2
    max_redial_s: float = 10.0
    """With `connect_timeout_s`: how long after an outage of any length a lost peer is dialled at the latest."""
    stable_connection_s: float = 10.0
    """A connection that held so long starts the redial delays from the first again."""
    seek_interval_s: float = 1.0
    """Between two looks whether outbound connections are missing."""
    ask_interval_s: float = 60.0
    """Between two questions for contacts to one peer; more than two in this time are a breach."""
    seed_interval_s: float = 5.0
    """Between two dials of seeds while nobody is connected."""
    check_interval_s: float = 120.0
    """Between two dials that only check an address, and of seeds while others are connected."""
    save_book_s: float = 60.0
    ban_s: float = 600.0
    forgive_points_per_s: float = 0.1


class TokenBucket:
    """Bytes allowed now. May fall below zero: one message larger than the rest is let through and paid off after."""

    __slots__ = ("_burst", "_rate", "_seen_s", "_tokens")

    def __init__(self, rate_bytes_per_s: float, burst_bytes: float, now_s: float) -> None:
        self._rate = rate_bytes_per_s
        self._burst = burst_bytes
        self._tokens = burst_bytes
        self._seen_s = now_s

    def spend(self, size: int, now_s: float) -> None:
        self._refill(now_s)
        self._tokens -= size

    def wait_s(self, now_s: float) -> float:
        """Seconds until something may be spent again; 0.0 when it may now."""
        if self._tokens >= 0:
            return 0.0
        self._refill(now_s)
        return max(0.0, -self._tokens / self._rate)

    def _refill(self, now_s: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now_s - self._seen_s) * self._rate)
        self._seen_s = now_s
