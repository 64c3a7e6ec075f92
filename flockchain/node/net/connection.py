"""One TCP connection: first the handshake, then messages by priority, with a limit on every wait."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from flockchain.errors import Refused
from flockchain.node.net.framing import CONTROL_CHANNEL, MessageReader
from flockchain.node.net.handshake import Claims, Handshake, Stage, printable
from flockchain.node.net.limits import MESSAGE_COST_BYTES, ChannelLimits, NetworkLimits, TokenBucket
from flockchain.node.net.liveness import Liveness
from flockchain.node.net.peers import PeerAddress
from flockchain.node.net.send_queue import SendQueue
from flockchain.node.ports import PeerId

WRITE_BUFFER_BYTES = 65_536
"""Sealed bytes that may wait in the process, and again in the kernel: an urgent frame waits behind no more."""
PUMP_BYTES = 524_288
"""Sealed in one turn of the loop; then others get theirs."""
_PING, _PONG, _GOODBYE = b"\x01", b"\x02", b"\x03"
_PING_TOKEN_BYTES = 8


class Owner(Protocol):
    """What a connection tells its network. The first two may raise `Refused`, the others nothing."""

    def connection_opened(self, connection: "Connection") -> None: ...
    def peer_proven(self, connection: "Connection") -> None: ...
    def connection_up(self, connection: "Connection") -> None: ...
    def message_received(self, connection: "Connection", channel: int, message: bytes) -> None: ...
    def breach_seen(self, connection: "Connection", breach: Refused) -> None: ...
    def connection_down(self, connection: "Connection", reason: Refused) -> None: ...


class Connection(asyncio.Protocol):
    def __init__(self, owner: Owner, handshake: Handshake, limits: NetworkLimits, dialled: PeerAddress | None) -> None:
        self.dialled = dialled
        """None for an inbound connection."""
        self.remote: tuple[str, int] = ("", 0)
        self.is_up = False
        self.up_since_s = 0.0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.latency_s: float | None = None
        self._owner = owner
        self._handshake = handshake
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Refused] = self._loop.create_future()
        """Done, with the reason, when the socket is gone."""
        now_s = self._loop.time()
        self._queue = SendQueue(limits.channels, now_s)
        self._read_buckets = _make_read_buckets(limits.channels, now_s)
        self._reader: MessageReader | None = None
        self._transport: asyncio.Transport | None = None
        self._reason: Refused | None = None
        self._is_down = False
        self._is_pump_due = False
        self._liveness = Liveness(limits, now_s)
        self._pings = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def is_outbound(self) -> bool:
        return self.dialled is not None

    @property
    def is_proven(self) -> bool:
        """Whether the handshake has shown who the peer is."""
        return self._handshake.claims is not None

    @property
    def claims(self) -> Claims:
        assert self._handshake.claims is not None
        return self._handshake.claims

    @property
    def peer(self) -> PeerId:
        return self._handshake.peer

    def was_stable(self, at_least_s: float) -> bool:
        """Whether it is, or was until now, up for so long."""
        return self.up_since_s > 0.0 and self._loop.time() - self.up_since_s >= at_least_s

    @property
    def queued_bytes(self) -> int:
        return self._queue.queued_bytes

    def send(self, channel: int, message: bytes) -> bool:
        """Queue a message; False when the queue is full or the connection is closing."""
        if not self.is_up or not self._queue.push(channel, message):
            return False
        self._schedule_pump()
        return True

    def probe(self) -> None:
        """Close unless the peer shows life soon: it seems to have lost this connection."""
        if self.is_up:
            self._liveness.probed(self._loop.time())
            self._ping()

    def close(self, reason: Refused) -> None:
        """Say goodbye with the reason and close; the owner hears of it before this returns, and once."""
        if self._reason is not None:
            return
        self._reason = reason
        transport = self._transport
        assert transport is not None
        if self.is_up and not isinstance(reason, _Lost):
            farewell = _GOODBYE + reason.message.encode("ascii", "replace")[:256]
            self._queue.clear()
            self._queue.push(CONTROL_CHANNEL, farewell)
            self._flush_last()
        elif not self.is_up:
            self._write(self._handshake.refuse(reason))
        self._go_down(reason)
        transport.close()
        # A peer that reads nothing would keep the goodbye, and the socket, for ever.
        self._set_timer("abort", self._limits.close_timeout_s, transport.abort)

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self.remote = tuple((transport.get_extra_info("peername") or ("", 0))[:2])
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        _set_socket_options(transport.get_extra_info("socket"))
        try:
            self._owner.connection_opened(self)
        except Refused as refusal:
            self.close(refusal)
            return
        timeout_s = self._limits.handshake_timeout_s
        late = Refused("handshake-timeout", f"the handshake took longer than {timeout_s} s")
        self._set_timer("handshake", timeout_s, lambda: self.close(late))
        self._write(self._handshake.start())

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self._reason is not None:
            return
        try:
            if self._reader is None:
                self._read_handshake(data)
            else:
                self._read_messages(data)
        except Refused as breach:
            self._owner.breach_seen(self, breach)
            self.close(breach)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._reason is None:
            self._reason = _Lost(
                "lost", f"the connection broke: {error}" if error else "the peer closed the connection"
            )
        self._go_down(self._reason)
        self._cancel_timers()  # the abort timer of `close`
        if not self.closed.done():
            self.closed.set_result(self._reason)

    def pause_writing(self) -> None:
        self._liveness.write_paused(self._loop.time())

    def resume_writing(self) -> None:
        self._liveness.write_resumed()
        self._schedule_pump()

    # Handshake

    def _read_handshake(self, data: bytes) -> None:
        self._write(self._handshake.feed(data))
        if self._handshake.stage is Stage.DECIDE:
            self._owner.peer_proven(self)
            self._write(self._handshake.accept())
        if self._handshake.stage is Stage.DONE:
            self._come_up()

    def _come_up(self) -> None:
        self._cancel_timers()
        self.is_up = True
        self.up_since_s = self._loop.time()
        self._liveness = Liveness(self._limits, self.up_since_s)
        max_message_bytes = {channel: limit.max_message_bytes for channel, limit in self._limits.channels.items()}
        self._reader = MessageReader(self._handshake.opener, max_message_bytes)
        self._owner.connection_up(self)
        if self._reason is None:
            self._ping()
            self._tick()
            self._read_messages(b"")  # frames that came in one piece with the welcome

    # Receiving

    def _read_messages(self, data: bytes) -> None:
        assert self._reader is not None
        now_s = self._loop.time()
        opener = self._handshake.opener
        frames_before = opener.frames_opened
        messages = self._reader.feed(data)
        has_whole_frame = opener.frames_opened > frames_before
        self._liveness.heard(now_s, is_mid_frame=opener.is_mid_frame, has_whole_frame=has_whole_frame)
        for channel, message in messages:
            self._read_buckets[channel].spend(len(message) + MESSAGE_COST_BYTES, now_s)
            if channel == CONTROL_CHANNEL:
                self._read_control(message)
            else:
                self._owner.message_received(self, channel, message)
            if self._reason is not None:
                return
        self._pause_reading_if_too_fast(now_s)

    def _read_control(self, message: bytes) -> None:
        kind, body = message[:1], message[1:]
        if kind == _PING and len(body) == _PING_TOKEN_BYTES:
            self._queue.push(CONTROL_CHANNEL, _PONG + body)  # a full queue drops it: the peer pings again
            self._schedule_pump()
        elif kind == _PONG and len(body) == _PING_TOKEN_BYTES:
            if body == self._ping_token():
                self.latency_s = self._liveness.since_ping_s(self._loop.time())
        elif kind == _GOODBYE:
            self.close(_Lost("goodbye", f"peer said: {printable(body.decode('utf-8', 'replace'))[:256]}"))
        else:
            raise Refused("bad-control", f"a control message of {len(message)} bytes has the unknown kind {kind.hex()}")

    def _pause_reading_if_too_fast(self, now_s: float) -> None:
        wait_s = max(bucket.wait_s(now_s) for bucket in self._read_buckets.values())
        if wait_s > 0.0 and not self._liveness.is_reading_paused:
            assert self._transport is not None
            self._liveness.reading_paused()
            self._transport.pause_reading()
            self._set_timer("resume reading", wait_s, self._resume_reading)

    def _resume_reading(self) -> None:
        assert self._transport is not None
        self._liveness.reading_resumed(self._loop.time())
        self._transport.resume_reading()

    # Sending

    def _schedule_pump(self) -> None:
        """Once per turn of the loop: messages of one turn leave in one write, most urgent first."""
        if not self._is_pump_due:
            self._is_pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_pump_due = False
        now_s = self._loop.time()
        sent = 0
        while self._may_write() and sent < PUMP_BYTES:
            batch = self._seal_batch(now_s)
            if not batch:
                wait_s = self._queue.wait_s(now_s)
                if wait_s is not None:
                    self._set_timer("pump", wait_s, self._schedule_pump)
                return
            self._write(batch)
            sent += len(batch)
        if self._may_write():
            self._schedule_pump()

    def _may_write(self) -> bool:
        return self._reason is None and not self._liveness.is_write_paused

    def _seal_batch(self, now_s: float) -> bytes:
        """Sealed frames to write at once, about WRITE_BUFFER_BYTES of them."""
        parts: list[bytes] = []
        size = 0
        while size < WRITE_BUFFER_BYTES and (frame := self._queue.pop_frame(now_s)) is not None:
            sealed = self._handshake.sealer.seal(frame)
            parts.append(sealed)
            size += len(sealed)
        return b"".join(parts)

    def _flush_last(self) -> None:
        frame = self._queue.pop_frame(self._loop.time())
        if frame is not None:
            self._write(self._handshake.sealer.seal(frame, is_last=True))

    def _write(self, data: bytes) -> None:
        if data:
            assert self._transport is not None
            self.sent_bytes += len(data)
            self._transport.write(data)

    # Time

    def _ping(self) -> None:
        self._liveness.pinged(self._loop.time())
        self._pings += 1
        self._queue.push(CONTROL_CHANNEL, _PING + self._ping_token())
        self._schedule_pump()

    def _ping_token(self) -> bytes:
        return self._pings.to_bytes(_PING_TOKEN_BYTES, "big")

    def _tick(self) -> None:
        now_s = self._loop.time()
        if self._liveness.is_ping_due(now_s):
            self._ping()
        overdue = self._liveness.find_overdue(now_s)
        if overdue is None:
            self._set_timer("tick", self._liveness.tick_s, self._tick)
        else:
            self.close(overdue)

    def _set_timer(self, name: str, delay_s: float, action: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay_s, action)

    def _cancel_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _go_down(self, reason: Refused) -> None:
        if self._is_down:
            return
        self._is_down = True
        self.is_up = False
        self._cancel_timers()
        self._queue.clear()
        self._owner.connection_down(self, reason)


class _Lost(Refused):
    """The other side ended the connection: nothing is left to tell it."""


def _make_read_buckets(channels: Mapping[int, ChannelLimits], now_s: float) -> dict[int, TokenBucket]:
    """A quarter above what an honest sender keeps to, for the clocks and the network between."""
    return {
        channel: TokenBucket(1.25 * limit.rate_bytes_per_s, 1.25 * limit.burst_bytes, now_s)
        for channel, limit in channels.items()
    }


def _set_socket_options(sock: socket.socket | None) -> None:
    if sock is None:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    not_sent_lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if not_sent_lowat is not None:
        sock.setsockopt(socket.IPPROTO_TCP, not_sent_lowat, WRITE_BUFFER_BYTES)
