"""Adapter files spread to every node that wants them, chunk by chunk, from whoever holds them."""

from random import Random

import pytest

from flockchain.chunks import compute_bytes_root
from flockchain.codec import encode
from flockchain.execution.state import State
from flockchain.node import blob_exchange
from flockchain.node.blob_exchange import BlobExchange
from flockchain.node.messages import ChunkRequest, ChunkResponse, decode_message
from flockchain.node.ports import Channel, NetworkEvent, PeerLost, Received
from tests.support.memory_ports import MemoryBlobs
from tests.support.sim_clock import SimClock, SimWorld
from tests.support.sim_network import SimNet, SimNetwork

DATA = Random(3).randbytes(1_000_000)
ROOT = compute_bytes_root(DATA)


class Peer:
    """A node's blob exchange alone; what is recorded is given by the test."""

    def __init__(self, net: SimNet, name: int) -> None:
        self.blobs = MemoryBlobs()
        self.network = SimNetwork(net, bytes([name]) * 20)
        self.clock = SimClock(net.world)
        self.exchange = BlobExchange(State(), self.blobs, self.network, self.clock, replicate=True)
        self.network.handler = self.handle
        self.clock.call_later(250, self.tick)

    def handle(self, event: NetworkEvent) -> None:
        if isinstance(event, Received):
            message = decode_message(event.channel, event.message)
            self.exchange.receive(event.peer, message)  # type: ignore[arg-type]
        elif isinstance(event, PeerLost):
            self.exchange.forget(event.peer)

    def tick(self) -> None:
        self.exchange.tick()
        self.clock.call_later(250, self.tick)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> list[Peer]:
    """Four connected peers of which all want one recorded file."""
    monkeypatch.setattr(blob_exchange, "find_recorded_blobs", lambda *_: iter([(ROOT, len(DATA))]))
    net = SimNet(SimWorld())
    members = [Peer(net, i + 1) for i in range(4)]
    net.connect_all()
    for member in members:
        member.exchange._want_round(1, 1)
    return members


def world_of(peers: list[Peer]) -> SimWorld:
    return peers[0].network._net.world


def test_an_uploaded_file_reaches_everyone(peers: list[Peer]) -> None:
    world_of(peers).run_for(2_000)
    peers[0].blobs.put_bytes(ROOT, DATA)
    world_of(peers).run_until(lambda: all(peer.blobs.has(ROOT) for peer in peers), 3_000)
    assert not any(peer.network.penalties for peer in peers)


def test_a_holder_that_leaves_half_way_is_replaced(peers: list[Peer]) -> None:
    for holder in peers[:2]:
        holder.blobs.put_bytes(ROOT, DATA)
    world_of(peers).run_until(lambda: len(peers[3].blobs.missing(ROOT)) < 4)
    peers[0].network.stop()
    world_of(peers).run_until(lambda: peers[3].blobs.has(ROOT), 10_000)


def test_a_wrong_chunk_is_penalised_and_fetched_elsewhere(peers: list[Peer]) -> None:
    liar, holder, reader = peers[0], peers[1], peers[3]
    liar.blobs.put_bytes(ROOT, DATA)
    holder.blobs.put_bytes(ROOT, DATA)
    serve = liar.blobs.chunk
    liar.blobs.chunk = lambda root, index: (b"wrong" + serve(root, index)[0][5:], serve(root, index)[1])  # type: ignore[method-assign]
    world_of(peers).run_until(lambda: reader.blobs.has(ROOT), 10_000)
    assert {peer for peer, _, _ in reader.network.penalties} <= {liar.network.id}


def test_a_silent_holder_is_given_up(peers: list[Peer]) -> None:
    silent = peers[0]
    silent.blobs.put_bytes(ROOT, DATA)
    silent.network._net.is_kept = lambda sender, target, channel, data: (
        not (sender == silent.network.id and isinstance(decode_message(channel, data), ChunkResponse))
    )
    world_of(peers).run_for(3_000)
    peers[1].blobs.put_bytes(ROOT, DATA)
    world_of(peers).run_until(lambda: all(peer.blobs.has(ROOT) for peer in peers[1:]), 20_000)


def test_what_was_never_asked_for_is_not_kept(peers: list[Peer]) -> None:
    stranger, reader = peers[0], peers[1]
    stranger.network.send(reader.network.id, Channel.BLOBS, encode(ChunkResponse(ROOT, 0, b"x" * 100, ())))
    stranger.network.send(reader.network.id, Channel.BLOBS, encode(ChunkRequest(b"u" * 32, 0)))
    world_of(peers).run_for(100)
    assert len(reader.blobs.missing(ROOT)) == 4
    assert not reader.network.penalties
