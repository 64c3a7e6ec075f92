"""Links between machines and faulty peers: loss, delay, duplication, reordering, partitions, one-way cuts, bans."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from flockchain.node.ports import Channel, NetworkEvent, PeerConnected, PeerId, PeerLost, Received

from .dice import Dice
from .machine import Machine
from .scenario import Scenario

BAN_POINTS = 100
BAN_MS = 3_000
HEALED_DELAY_MS = 10
RETRY_MS = 10
HOLD = -1
"""A route's answer: keep the message until the plot is over. None: the ordinary network decides."""
LOSE = -2
"""Another: the message never arrives."""

Link = tuple[PeerId, PeerId]


class World(Protocol):
    """What the network needs to know."""

    now_ms: int
    elapsed_ms: int
    is_healed: bool
    dice: Dice
    scenario: Scenario
    machines: Mapping[PeerId, Machine]

    def call_at(self, when_ms: int, action: Callable[[], None]) -> Callable[[], None]: ...
    def count(self, what: str) -> None: ...
    def note(self, *what: object) -> None: ...
    def kind_of(self, data: bytes) -> str: ...


class Links:
    """Who is connected to whom, and how long a message takes."""

    def __init__(self, world: World, numbers: Mapping[PeerId, int]) -> None:
        """`numbers`: every peer of the network, machines and faulty ones, with its number in the scenario."""
        self._world = world
        self._numbers = numbers
        self._up: set[Link] = set()
        self._next_event_ms: dict[Link, int] = {}
        self._points: dict[Link, int] = {}

    # -- connections --------------------------------------------------------------------------------------------------

    def connect(self, one: PeerId, other: PeerId) -> None:
        """Unless they are connected, never will be, or one of them is down."""
        machines, pair = self._world.machines, {self._numbers[one], self._numbers[other]}
        if pair in self._world.scenario.missing:
            return
        if (one, other) in self._up or any(p in machines and machines[p].node is None for p in (one, other)):
            return
        for peer, neighbour in ((one, other), (other, one)):
            self._up.add((peer, neighbour))
            self._tell(peer, neighbour, PeerConnected(neighbour))

    def connect_to_all(self, one: PeerId) -> None:
        for other in self._numbers:
            if other != one and not (one not in self._world.machines and other not in self._world.machines):
                self.connect(one, other)

    def disconnect(self, one: PeerId, other: PeerId) -> None:
        for peer, neighbour in ((one, other), (other, one)):
            if (peer, neighbour) in self._up:
                self._up.discard((peer, neighbour))
                self._tell(peer, neighbour, PeerLost(neighbour, "the connection broke"))

    def disconnect_from_all(self, one: PeerId) -> None:
        for other in self._numbers:
            self.disconnect(one, other)

    def blame(self, machine: Machine, peer: PeerId, points: int) -> None:
        """At 100 points the peer is disconnected and banned for a while."""
        link = (machine.id, peer)
        self._points[link] = self._points.get(link, 0) + points
        if self._points[link] >= BAN_POINTS:
            self._points[link] = 0
            self._world.count("a peer was banned")
            self.disconnect(machine.id, peer)
            self._world.call_at(self._world.now_ms + BAN_MS, partial(self.connect, machine.id, peer))

    def _tell(self, peer: PeerId, neighbour: PeerId, event: NetworkEvent) -> None:
        """Events of one connection arrive in order."""
        machine = self._world.machines.get(peer)
        if machine is None:
            return
        when_ms = max(
            self._world.now_ms + self._world.dice.between(1, 20), self._next_event_ms.get((peer, neighbour), 0)
        )
        self._next_event_ms[peer, neighbour] = when_ms + 1
        self._world.call_at(when_ms, partial(self._change, machine, neighbour, event))

    def _change(self, machine: Machine, neighbour: PeerId, event: NetworkEvent) -> None:
        if machine.node is None:
            return
        if isinstance(event, PeerConnected):
            if (machine.id, neighbour) not in self._up or neighbour in machine.connected:
                return
            machine.connected.add(neighbour)
        else:
            if neighbour not in machine.connected:
                return
            machine.connected.discard(neighbour)
        self._world.note(machine.name, type(event).__name__, self._numbers[neighbour])
        machine.handling = type(event).__name__
        machine.handle(event)

    # -- messages -----------------------------------------------------------------------------------------------------

    def send(self, sender: PeerId, target: PeerId, channel: Channel, data: bytes, route_ms: int | None) -> None:
        """A message on its way; `route_ms`: who schedules the network says how long it takes."""
        world, faults, dice = self._world, self._world.scenario, self._world.dice
        if world.is_healed:
            self.deliver_after(dice.between(1, HEALED_DELAY_MS), sender, target, channel, data)
        elif route_ms is not None:
            self.deliver_after(route_ms, sender, target, channel, data)
        elif self._is_cut(sender, target) or dice.chance(faults.loss):
            world.count("a message was lost")
        else:
            copies = 1
            if dice.chance(faults.duplication):
                copies = 2
                world.count("a message was duplicated")
            for _ in range(copies):
                is_late = dice.chance(faults.tail)
                delay_ms = dice.between(1, faults.tail_ms if is_late else faults.delay_ms)
                self.deliver_after(delay_ms, sender, target, channel, data)

    def deliver_after(self, delay_ms: int, sender: PeerId, target: PeerId, channel: Channel, data: bytes) -> None:
        self._world.call_at(self._world.now_ms + delay_ms, partial(self._deliver, sender, target, channel, data))

    def _deliver(self, sender: PeerId, target: PeerId, channel: Channel, data: bytes) -> None:
        world, machine = self._world, self._world.machines[target]
        if machine.node is None:
            return
        if sender not in machine.connected:
            if sender not in world.machines and (target, sender) in self._up:  # faulty ones repeat until they are heard
                self.deliver_after(RETRY_MS, sender, target, channel, data)
            return
        machine.handling = world.kind_of(data)
        world.note(self._numbers[sender], machine.name, int(channel), machine.handling)
        machine.handle(Received(sender, channel, data))

    def _is_cut(self, sender: PeerId, target: PeerId) -> bool:
        world, now = self._world, self._world.elapsed_ms
        one, other = self._numbers[sender], self._numbers[target]
        for begin, end, mask in world.scenario.partitions:
            if begin <= now < end and (mask >> one & 1) != (mask >> other & 1):
                world.count("a message met a partition")
                return True
        for begin, end, source, sink in world.scenario.cuts:
            if begin <= now < end and (source, sink) == (one, other):
                world.count("a message met a one-way cut")
                return True
        return False
