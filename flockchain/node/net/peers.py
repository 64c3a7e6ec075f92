"""Peers as a person names them, as the API shows them, and as their misbehaviour is remembered."""

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from math import ceil
from typing import Generic, TypeVar

from flockchain.crypto import parse_address
from flockchain.errors import Refused
from flockchain.node.ports import PeerId

BAN_POINTS = 100
MAX_REMEMBERED = 10_000
CLOCK_GRAIN_S = 0.001
"""A difference of two readings of the clock is exact to less than this."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where to dial, and who must answer there if that is known."""

    host: str
    port: int
    peer: PeerId | None = None

    def __str__(self) -> str:
        return format_host_port(self.host, self.port)


def parse_peer_address(text: str) -> PeerAddress:
    """From ``host:port`` or ``flk1...@host:port`` (IPv6 hosts in brackets); raises `Refused`."""
    identity, _, where = text.rpartition("@")
    peer = parse_address(identity) if identity else None
    host, colon, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not int(port) <= 65_535:
        raise Refused(
            "bad-peer-address", f"peer address {text[:128]!r} is not of the form host:port or flk1...@host:port"
        )
    return PeerAddress(host, int(port), peer)


def format_host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One connected peer, as `/v1/peers` shows it."""

    peer: PeerId
    is_outbound: bool
    host: str
    port: int
    """Of this connection's other end."""
    listen_port: int
    """Where the peer says it listens; 0 when it does not."""
    software: str
    sent_bytes: int
    received_bytes: int
    queued_bytes: int
    latency_ms: float | None
    """Last round trip of a ping; None before the first."""
    connected_s: float
    points: int
    """Misbehaviour counted so far; at 100 the peer is banned."""


@dataclass(slots=True)
class _Record:
    points: float
    seen_s: float
    banned_until_s: float
    reason: str


class PenaltyBook(Generic[K]):
    """Misbehaviour by key (a peer's id, or an IP before its identity is known); old sins are forgiven slowly."""

    def __init__(self, ban_s: float, forgive_points_per_s: float) -> None:
        self._ban_s = ban_s
        self._forgive_points_per_s = forgive_points_per_s
        self._records: OrderedDict[K, _Record] = OrderedDict()

    def add(self, key: K, points: int, reason: str, now_s: float) -> bool:
        """Count `points`; True when that bans the key. The oldest of too many records is forgotten."""
        assert points >= 0
        record = self._records.setdefault(key, _Record(0.0, now_s, 0.0, ""))
        if now_s < record.banned_until_s:
            return False
        self._records.move_to_end(key)
        record.points = self._points_now(record, now_s) + points
        record.seen_s = now_s
        record.reason = reason
        if len(self._records) > MAX_REMEMBERED:
            self._records.popitem(last=False)
        if record.points < BAN_POINTS:
            return False
        record.points = 0.0
        record.banned_until_s = now_s + self._ban_s
        return True

    def points(self, key: K, now_s: float) -> int:
        record = self._records.get(key)
        return 0 if record is None else int(self._points_now(record, now_s))

    def check(self, key: K, now_s: float) -> None:
        """Raise `Refused` while the key is banned."""
        record = self._records.get(key)
        if record is not None and now_s < record.banned_until_s:
            left_s = max(1, ceil(record.banned_until_s - now_s - CLOCK_GRAIN_S))
            raise Refused("banned", f"banned for another {left_s} s: {record.reason}")

    def _points_now(self, record: _Record, now_s: float) -> float:
        return max(0.0, record.points - (now_s - record.seen_s) * self._forgive_points_per_s)
