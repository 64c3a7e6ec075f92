"""The `Network` port in one process: seeded delays, loss, partitions."""

from collections.abc import Callable
from functools import partial
from random import Random

from flockchain.node.ports import Channel, NetworkEvent, PeerConnected, PeerId, PeerLost, Received

from .sim_clock import SimWorld


class SimNet:
    """Joins the `SimNetwork`s of one test."""

    def __init__(self, world: SimWorld, seed: int = 1, *, delay_ms: int = 5, loss: float = 0.0) -> None:
        self.world = world
        self.rng = Random(seed)
        self.delay_ms = delay_ms
        self.loss = loss
        self.networks: dict[PeerId, SimNetwork] = {}
        self.links: set[frozenset[PeerId]] = set()
        self.is_kept: Callable[[PeerId, PeerId, Channel, bytes], bool] = lambda *_: True
        """A test's own rule of what is delivered."""

    def connect(self, one: PeerId, other: PeerId) -> None:
        self.links.add(frozenset((one, other)))
        for a, b in ((one, other), (other, one)):
            self._deliver_later(a, PeerConnected(b))

    def disconnect(self, one: PeerId, other: PeerId) -> None:
        self.links.discard(frozenset((one, other)))
        for a, b in ((one, other), (other, one)):
            self._deliver_later(a, PeerLost(b, "the test cut the link"))

    def connect_all(self) -> None:
        ids = sorted(self.networks)
        for i, one in enumerate(ids):
            for other in ids[i + 1 :]:
                if frozenset((one, other)) not in self.links:
                    self.connect(one, other)

    def transmit(self, sender: PeerId, target: PeerId, channel: Channel, message: bytes) -> bool:
        if frozenset((sender, target)) not in self.links:
            return False
        if self.rng.random() >= self.loss and self.is_kept(sender, target, channel, message):
            self._deliver_later(target, Received(sender, channel, message))
        return True

    def _deliver_later(self, target: PeerId, event: NetworkEvent) -> None:
        delay_ms = self.rng.randint(1, self.delay_ms)
        self.world.at(self.world.now_ms + delay_ms, partial(self._deliver, target, self.networks.get(target), event))

    def _deliver(self, target: PeerId, life: "SimNetwork | None", event: NetworkEvent) -> None:
        network = self.networks.get(target)
        if network is not None and network is life and network.handler is not None:
            network.handler(event)


class SimNetwork:
    """One node's end."""

    def __init__(self, net: SimNet, peer_id: PeerId) -> None:
        self.id = peer_id
        self.handler: Callable[[NetworkEvent], None] | None = None
        self.penalties: list[tuple[PeerId, int, str]] = []
        self._net = net
        net.networks[peer_id] = self

    def peers(self) -> list[PeerId]:
        return sorted(peer for link in self._net.links if self.id in link for peer in link if peer != self.id)

    def send(self, peer: PeerId, channel: Channel, message: bytes) -> bool:
        return self._net.transmit(self.id, peer, channel, message)

    def broadcast(self, channel: Channel, message: bytes, except_peer: PeerId | None = None) -> None:
        for peer in self.peers():
            if peer != except_peer:
                self.send(peer, channel, message)

    def penalize(self, peer: PeerId, points: int, reason: str) -> None:
        self.penalties.append((peer, points, reason))

    def stop(self) -> None:
        """The process is gone: so are its links."""
        self.handler = None
        for peer in self.peers():
            self._net.disconnect(self.id, peer)
        if self._net.networks.get(self.id) is self:
            del self._net.networks[self.id]
