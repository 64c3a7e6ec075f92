"""TcpNetwork: the real `Network` port. Decides who may connect and stay; connections do the rest."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from nacl.signing import SigningKey

from flockchain.crypto import address_of, format_address
from flockchain.errors import Fault, Refused
from flockchain.node.net.connection import Connection
from flockchain.node.net.dialer import Dialer, describe
from flockchain.node.net.framing import EXCHANGE_CHANNEL
from flockchain.node.net.handshake import Handshake, LocalNode, RefusedByPeer, Role, printable
from flockchain.node.net.limits import NetworkLimits
from flockchain.node.net.peers import PeerAddress, PeerInfo, PenaltyBook, is_loopback, parse_peer_address
from flockchain.node.net.seeker import Discovery, Seeker
from flockchain.node.ports import Channel, NetworkEvent, PeerConnected, PeerId, PeerLost, Received

log = logging.getLogger(__name__)

BREACH_POINTS = {
    # Whoever sits on the path can cause these two, so they prove little against the peer.
    "bad-seal": 10,
    "bad-frame-length": 10,
    # These were sealed with the session key: the peer itself sent them.
    "bad-frame-tag": 50,
    "bad-frame-cut": 50,
    "frame-after-end": 50,
    "unknown-channel": 50,
    "message-too-large": 50,
    "bad-control": 50,
    "bad-exchange": 50,
    "malformed": 50,
}
"""Counted against a proven peer, by the refusal's code."""
HANDSHAKE_BREACH_POINTS = dict.fromkeys(("not-a-peer", "bad-ephemeral-key", "bad-seal", "malformed", "bad-proof"), 20)
"""Counted against the IP, as no identity is proven yet."""


class TcpNetwork:
    """Peers over TCP.

    `listen` is "host:port" (port 0 takes a free one) or None; `persistent_peers` are "host:port" or
    "flk1...@host:port", the latter accepting only that node key. `on_event` is called on the loop, one event at a
    time, never from inside a call to this object. `discovery` lets it find further peers by itself.
    Raises `Refused` for addresses it cannot read.
    """

    def __init__(
        self,
        node_key: SigningKey,
        genesis_hash: bytes,
        chain_id: str,
        listen: str | None,
        persistent_peers: Sequence[str],
        limits: NetworkLimits,
        on_event: Callable[[NetworkEvent], None],
        discovery: Discovery | None = None,
    ) -> None:
        self.id: PeerId = address_of(bytes(node_key.verify_key))
        self._node = LocalNode(node_key, genesis_hash, chain_id)
        self._listen = None if listen is None else parse_peer_address(listen)
        self._limits = limits
        self._on_event = on_event
        self._connections: set[Connection] = set()
        """Every open socket, handshakes and closing ones included."""
        self._proven: dict[PeerId, Connection] = {}
        """Dialled connections that wait for the listener's welcome."""
        self._live: dict[PeerId, Connection] = {}
        self._penalties: PenaltyBook[PeerId] = PenaltyBook(limits.ban_s, limits.forgive_points_per_s)
        self._ip_penalties: PenaltyBook[str] = PenaltyBook(limits.ban_s, limits.forgive_points_per_s)
        targets = [parse_peer_address(text) for text in persistent_peers]
        if len(targets) > limits.max_outbound_peers:
            raise Refused(
                "too-many-peers",
                f"{len(targets)} persistent peers are named, at most {limits.max_outbound_peers} are dialled",
            )
        self._dialers = [Dialer(target, self.connect, self._live.get, limits) for target in targets]
        self._reserved = {target.peer for target in targets}
        self._seeker: Seeker | None = None
        if discovery is not None:
            self._seeker = Seeker(self, discovery, limits, limits.max_outbound_peers - len(targets))
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_running = False

    async def start(self) -> None:
        """Listen and begin to dial; raises `Fault` when the address cannot be listened on."""
        assert not self._is_running
        self._loop = asyncio.get_running_loop()
        if self._listen is not None:
            try:
                self._server = await self._loop.create_server(self._accept, self._listen.host, self._listen.port)
            except OSError as error:
                raise Fault(
                    f"cannot listen for peers on {self._listen}: {describe(error)}. Nothing was changed: stop what "
                    "uses it, or correct [p2p] listen in config.toml, then start again"
                ) from None
            self._node = LocalNode(self._node.key, self._node.genesis_hash, self._node.chain_id, self.listen_port)
        self._is_running = True
        self._tasks = [self._loop.create_task(dialer.run()) for dialer in self._dialers]
        if self._seeker is not None:
            self._tasks.append(self._loop.create_task(self._seeker.run()))

    async def stop(self) -> None:
        """Say goodbye to every peer and release every socket. No event is delivered after this returns."""
        self._is_running = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._seeker is not None:
            await self._seeker.stop()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        open_connections = list(self._connections)
        for connection in open_connections:
            connection.close(Refused("stopping", "this node is stopping"))
        if open_connections:
            closed = [connection.closed for connection in open_connections]
            await asyncio.wait(closed, timeout=2 * self._limits.close_timeout_s)

    # The port

    def peers(self) -> list[PeerId]:
        return sorted(self._live)

    def send(self, peer: PeerId, channel: Channel, message: bytes) -> bool:
        connection = self._live.get(peer)
        return connection is not None and connection.send(channel, message)

    def broadcast(self, channel: Channel, message: bytes, except_peer: PeerId | None = None) -> None:
        for peer, connection in self._live.items():
            if peer != except_peer:
                connection.send(channel, message)

    def penalize(self, peer: PeerId, points: int, reason: str) -> None:
        if not self._penalties.add(peer, points, reason, self._loop.time()):
            return
        log.warning("peer %s is banned for %s s: %s", format_address(peer), self._limits.ban_s, reason)
        for connection in list(self._connections):
            if connection.is_proven and connection.peer == peer:
                connection.close(Refused("banned", f"banned for {self._limits.ban_s:g} s: {reason}"))

    # For people

    @property
    def listen_port(self) -> int:
        """The port listened on; 0 when this node does not listen."""
        return 0 if self._server is None else int(self._server.sockets[0].getsockname()[1])

    def peer_infos(self) -> list[PeerInfo]:
        """The connected peers, by id."""
        return [self._describe(peer, self._live[peer]) for peer in self.peers()]

    def dial_errors(self) -> dict[str, str]:
        """For each persistent peer that is not connected: why."""
        return {str(dialer.target): dialer.last_error for dialer in self._dialers if dialer.last_error}

    # For the seeker

    def live_connections(self) -> list[Connection]:
        return list(self._live.values())

    def named_peers(self) -> set[PeerId]:
        return {dialer.known_peer for dialer in self._dialers if dialer.known_peer is not None}

    def named_addresses(self) -> set[tuple[str, int]]:
        return {(dialer.target.host, dialer.target.port) for dialer in self._dialers}

    async def connect(self, target: PeerAddress) -> Connection:
        """Open a socket and begin the handshake."""
        handshake = Handshake(Role.DIALER, self._node)
        _, connection = await self._loop.create_connection(
            lambda: Connection(self, handshake, self._limits, target), target.host, target.port
        )
        return connection

    def _describe(self, peer: PeerId, connection: Connection) -> PeerInfo:
        now_s = self._loop.time()
        host, port = connection.remote
        return PeerInfo(
            peer=peer,
            is_outbound=connection.is_outbound,
            host=host,
            port=port,
            listen_port=connection.claims.listen_port,
            software=printable(connection.claims.software),
            sent_bytes=connection.sent_bytes,
            received_bytes=connection.received_bytes,
            queued_bytes=connection.queued_bytes,
            latency_ms=None if connection.latency_s is None else 1_000 * connection.latency_s,
            connected_s=now_s - connection.up_since_s,
            points=self._penalties.points(peer, now_s),
        )

    # Connections

    def _accept(self) -> Connection:
        return Connection(self, Handshake(Role.LISTENER, self._node), self._limits, None)

    def connection_opened(self, connection: Connection) -> None:
        """Bounds what strangers can open, before any cryptography is spent on them; raises `Refused`."""
        others = [other for other in self._connections if not other.is_outbound]
        self._connections.add(connection)
        connection.closed.add_done_callback(lambda _: self._connections.discard(connection))
        if not self._is_running:
            raise Refused("stopping", "this node is stopping")
        if connection.is_outbound:
            return
        ip = connection.remote[0]
        if not self._is_exempt(ip):
            self._ip_penalties.check(ip, self._loop.time())
            if sum(other.remote[0] == ip for other in others) >= self._limits.max_connections_per_ip:
                raise Refused(
                    "too-many-connections", f"{ip} already has {self._limits.max_connections_per_ip} connections here"
                )
        if sum(not other.is_up for other in others) >= self._limits.max_inbound_handshakes:
            raise Refused("busy", f"{self._limits.max_inbound_handshakes} handshakes are under way already")

    def peer_proven(self, connection: Connection) -> None:
        """Whether the peer, whose identity is known now, may come in; raises `Refused`."""
        peer, dialled = connection.peer, connection.dialled
        if dialled is not None and dialled.peer not in (None, peer):
            assert dialled.peer is not None
            raise Refused(
                "wrong-identity",
                f"dialled {format_address(dialled.peer)} at {dialled}, but {format_address(peer)} answered",
            )
        self._penalties.check(peer, self._loop.time())
        if dialled is None and peer not in self._reserved and peer not in self._live:
            inbound = sum(not live.is_outbound for live in self._live.values())
            if inbound >= self._limits.max_inbound_peers:
                raise Refused("too-many-peers", f"{inbound} inbound peers are connected, no more are let in")
        self._refuse_duplicate(connection)
        if self._seeker is not None and connection.is_outbound:
            self._seeker.check_dialled(connection)
        if connection.is_outbound:
            self._proven[peer] = connection

    def _refuse_duplicate(self, connection: Connection) -> None:
        """Of two connections dialled from both ends the one dialled by the lower id stays; both ends agree on it.

        Of two dialled from the same end the newer stays: a dialler with a live connection does not dial, so it
        has lost the older one. The other end may have lost its own too, so the rival is probed.
        """
        peer = connection.peer
        rival = self._live.get(peer)
        if rival is not None and connection.is_outbound:
            raise Refused("duplicate", "this peer is connected already")
        rival = rival or self._proven.get(peer)
        if rival is not None and rival.is_outbound and connection.is_outbound:
            raise Refused("duplicate", "this peer was dialled already")
        if rival is None or rival.is_outbound == connection.is_outbound:
            return
        if connection.is_outbound != (self.id < peer):
            rival.probe()
            raise Refused("duplicate", "a connection dialled from the other end is kept")

    def connection_up(self, connection: Connection) -> None:
        peer = connection.peer
        self._forget_proven(connection)
        rival = self._live.get(peer)
        if rival is not None:
            if rival.is_outbound != connection.is_outbound and connection.is_outbound != (self.id < peer):
                connection.close(Refused("duplicate", "a connection dialled from the other end is kept"))
                return
            rival.close(Refused("replaced", "a newer connection of the same peer is kept"))
        self._live[peer] = connection
        self._emit(PeerConnected(peer))
        if self._seeker is not None:
            self._seeker.connection_up(connection)

    def message_received(self, connection: Connection, channel: int, message: bytes) -> None:
        if channel != EXCHANGE_CHANNEL:
            self._emit(Received(connection.peer, Channel(channel), message))
        elif self._seeker is not None:
            self._seeker.message_received(connection, message)

    def breach_seen(self, connection: Connection, breach: Refused) -> None:
        ip = connection.remote[0]
        if isinstance(breach, RefusedByPeer):
            return
        if connection.is_up:
            self.penalize(connection.peer, BREACH_POINTS.get(breach.code, 0), breach.message)
        elif not connection.is_outbound and not self._is_exempt(ip):
            points = HANDSHAKE_BREACH_POINTS.get(breach.code, 0)
            if self._ip_penalties.add(ip, points, breach.message, self._loop.time()):
                log.warning("address %s is banned for %s s: %s", ip, self._limits.ban_s, breach.message)

    def connection_down(self, connection: Connection, reason: Refused) -> None:
        if not connection.is_proven:
            log.debug("connection with %s ended before its handshake: %s", connection.remote[0], reason.message)
            return
        self._forget_proven(connection)
        if self._seeker is not None:
            self._seeker.connection_down(connection)
        if self._live.get(connection.peer) is connection:
            del self._live[connection.peer]
            self._emit(PeerLost(connection.peer, reason.message))

    def _forget_proven(self, connection: Connection) -> None:
        if self._proven.get(connection.peer) is connection:
            del self._proven[connection.peer]

    def _is_exempt(self, ip: str) -> bool:
        return self._limits.is_loopback_exempt and is_loopback(ip)

    def _emit(self, event: NetworkEvent) -> None:
        self._loop.call_soon(self._deliver, event)

    def _deliver(self, event: NetworkEvent) -> None:
        if self._is_running:
            self._on_event(event)
