"""Networks and misbehaving peers on 127.0.0.1, for the tests of this folder."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from nacl.signing import SigningKey

from flockchain.crypto import address_of, sha256
from flockchain.errors import Refused
from flockchain.node.net.handshake import Handshake, LocalNode, Role, Stage
from flockchain.node.net.limits import NetworkLimits
from flockchain.node.net.network import TcpNetwork
from flockchain.node.net.seeker import Discovery
from flockchain.node.ports import NetworkEvent, PeerConnected, PeerId, PeerLost, Received

GENESIS = sha256(b"genesis of these tests")
CHAIN = "net-test"
QUICK = NetworkLimits(first_redial_s=0.01, max_redial_s=0.05)


def node_key(number: int) -> SigningKey:
    return SigningKey(sha256(b"node key", bytes((number,))))


def id_of(number: int) -> PeerId:
    return address_of(bytes(node_key(number).verify_key))


LOW, HIGH = sorted((1, 2), key=id_of)
"""Numbers of two node keys, by their id: connections dialled by the lower one win."""


def local_node(number: int, genesis_hash: bytes = GENESIS, chain_id: str = CHAIN) -> LocalNode:
    return LocalNode(node_key(number), genesis_hash, chain_id)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A whole story on a fresh loop of each kind; half a minute is more than any of them takes."""

    async def bounded() -> None:
        await asyncio.wait_for(story(), 30)

    asyncio.run(bounded())
    uvloop.run(bounded())


async def wait_until(predicate: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not predicate():
            await asyncio.sleep(0.002)


@dataclass
class Party:
    """A running network and what it reported."""

    network: TcpNetwork
    events: list[NetworkEvent] = field(default_factory=list)

    @property
    def id(self) -> PeerId:
        return self.network.id

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.network.listen_port}"

    @property
    def received(self) -> list[tuple[int, bytes]]:
        return [(event.channel, event.message) for event in self.events if isinstance(event, Received)]

    @property
    def losses(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, PeerLost)]

    @property
    def connects(self) -> int:
        return sum(isinstance(event, PeerConnected) for event in self.events)


@asynccontextmanager
async def party(
    number: int,
    *peers: str,
    listen: str | None = "127.0.0.1:0",
    limits: NetworkLimits = QUICK,
    genesis_hash: bytes = GENESIS,
    chain_id: str = CHAIN,
    discovery: Discovery | None = None,
) -> AsyncIterator[Party]:
    events: list[NetworkEvent] = []
    network = TcpNetwork(node_key(number), genesis_hash, chain_id, listen, peers, limits, events.append, discovery)
    await network.start()
    try:
        yield Party(network, events)
    finally:
        await network.stop()


class RawPeer:
    """A peer with a valid key that then sends whatever bytes a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handshake: Handshake) -> None:
        self.reader = reader
        self.writer = writer
        self.handshake = handshake

    def write_frame(self, plaintext: bytes) -> None:
        self.writer.write(self.handshake.sealer.seal(plaintext))

    async def read_to_end(self) -> None:
        """Until the other side closes, politely or not."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            pass


@asynccontextmanager
async def raw_socket(target: Party) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.network.listen_port)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


@asynccontextmanager
async def raw_peer(number: int, target: Party) -> AsyncIterator[RawPeer]:
    """Connected and welcomed; raises `Refused` when it is not."""
    async with raw_socket(target) as (reader, writer):
        handshake = Handshake(Role.DIALER, local_node(number))
        writer.write(handshake.start())
        while handshake.stage is not Stage.DONE:
            data = await reader.read(4_096)
            if not data:
                raise Refused("lost", "the other side closed without a reason")
            writer.write(handshake.feed(data))
            if handshake.stage is Stage.DECIDE:
                writer.write(handshake.accept())
        yield RawPeer(reader, writer, handshake)


@asynccontextmanager
async def raw_listener(number: int) -> AsyncIterator[str]:
    """Welcomes the first that dials, then neither reads nor writes nor listens; gives its "host:port"."""
    silent: list[asyncio.StreamWriter] = []

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)
        server.close()
        handshake = Handshake(Role.LISTENER, local_node(number))
        while handshake.stage is not Stage.DONE:
            writer.write(handshake.feed(await reader.read(4_096)))
            if handshake.stage is Stage.DECIDE:
                writer.write(handshake.accept())

    server = await asyncio.start_server(welcome, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for writer in silent:
            writer.close()


def shake_hands(dialer: Handshake, listener: Handshake) -> None:
    """Both sides to DONE, accepting each other; raises what either of them refuses."""
    to_listener, to_dialer = dialer.start(), b""
    while to_listener or to_dialer:
        to_dialer += _feed(listener, to_listener)
        to_listener = _feed(dialer, to_dialer)
        to_dialer = b""


def _feed(side: Handshake, data: bytes) -> bytes:
    if not data:
        return b""
    answer = side.feed(data)
    return answer + side.accept() if side.stage is Stage.DECIDE else answer
