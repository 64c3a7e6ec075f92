"""One honest validator: the real `Node` over simulated ports, and what of it survives a crash."""

import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from flockchain.errors import Fault
from flockchain.node.messages import Message, VoteMessage
from flockchain.node.node import Node
from flockchain.node.ports import Channel, Decided, NetworkEvent, PeerId
from flockchain.node.signer import PersistedSigner, create_signer_state
from flockchain.node.wal import WriteAheadLog

from ...support.ledger import make_address
from ...support.memory_ports import MemoryBlobs
from ..invariants import Violation
from .dice import Dice
from .disk import SimDisk
from .genesis import beacon_of, key_of
from .scenario import Moment
from .stores import SimFileStore, SimMemoryStore


class Crashed(BaseException):
    """The power is cut at this very call: no handler of errors may see it."""


class Surroundings(Protocol):
    """What a machine needs of its world."""

    genesis: Any
    genesis_hash: bytes
    now_ms: int
    dice: Dice

    def call_at(self, when_ms: int, action: Callable[[], None]) -> Callable[[], None]: ...
    def count(self, what: str) -> None: ...
    def transmit(self, sender: "Machine", target: PeerId, channel: Channel, data: bytes) -> bool: ...
    def on_penalty(self, machine: "Machine", peer: PeerId, points: int, reason: str) -> None: ...
    def on_persist(self, machine: "Machine", decided: Decided) -> None: ...
    def on_evidence(self, machine: "Machine", first: Any, second: Any) -> None: ...
    def on_start(self, machine: "Machine") -> None: ...
    def on_crash(self, machine: "Machine") -> None: ...
    def on_progress(self, machine: "Machine") -> None: ...


class Machine:
    """Clock, Network and disk are its own. `loses_log`: after a crash its log is gone, by a bad disk or a hand."""

    def __init__(
        self, world: Surroundings, index: int, skew_ms: int, folder: Path | None, loses_log: bool = False
    ) -> None:
        self.name = f"val{index}"
        self.id = make_address(f"node{index}")
        self.key = key_of(self.name)
        self.skew_ms = skew_ms
        self.loses_log = loses_log
        self.connected: set[PeerId] = set()
        self.handling = ""
        """Name of the message in hand, for the statistics."""
        self.node: Node | None = None
        self._world = world
        self._life = 0
        self._doom: tuple[Moment, int] | None = None
        self._is_killed = False
        self._passed_on: set[VoteMessage] = set()
        """By the node that runs now."""
        self._calls_to_crash = 0
        """0: none is planned, or its moment is not there yet."""
        self._disk = SimDisk(self.step)
        self._blobs = MemoryBlobs()
        if folder is None:
            self.store: Any = SimMemoryStore(world.genesis, self.step, self._end_commit)
        else:
            self.store = SimFileStore(world.genesis, folder / self.name, self.step, self._end_commit)
        self._persist = self.store.persist_blocks
        self.store.persist_blocks = self._check_and_persist
        create_signer_state(self._disk.path("signer_state.json"), self.key.public)

    @property
    def running(self) -> Node:
        assert self.node is not None
        return self.node

    # -- life and death -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """From what is on the disk."""
        assert self.node is None
        self.guard(self._start)

    def guard(self, action: Callable[[], None]) -> None:
        """Run the node's code: it may crash, and must not stop by itself."""
        try:
            action()
        except Crashed:
            self._crash()
        except (Fault, AssertionError) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{self.name}: {error!r} at {where.name} ({Path(where.filename).name}:{where.lineno})"
            raise Violation("node stopped", what) from error
        else:
            if self.node is not None:
                self._world.on_progress(self)

    def doom(self, moment: Moment, calls: int, is_killed: bool = False) -> None:
        """It will fall at this call on a port after the next such moment.

        `is_killed`: the process alone, as by `kill -9`; what it has written stays. Otherwise the power is cut.
        """
        self._doom, self._is_killed = (moment, calls), is_killed
        self.reach(Moment.NOW)

    def spare(self) -> None:
        """It will not fall."""
        self._doom, self._calls_to_crash, self._is_killed = None, 0, False

    def reach(self, moment: Moment) -> None:
        """A moment that a crash may have waited for."""
        if self._doom is not None and self._doom[0] is moment:
            self._calls_to_crash, self._doom = self._doom[1], None

    def step(self) -> None:
        """A call on a port is about to be made."""
        if self._calls_to_crash:
            self._calls_to_crash -= 1
            if not self._calls_to_crash:
                raise Crashed

    def _end_commit(self) -> None:
        self.reach(Moment.COMMIT)
        self.step()

    def handle(self, event: NetworkEvent) -> None:
        if self.node is not None:
            self.guard(partial(self.node.handle, event))

    def _start(self) -> None:
        world, disk = self._world, self._disk
        signer = PersistedSigner(self.key.signing, disk.path("signer_state.json"), world.genesis_hash)
        signer.__dict__["beacon"] = beacon_of(self.name)
        log = WriteAheadLog(disk.path("wal"))
        if log.torn_bytes:
            world.count("a torn log was cut")
        node = Node(clock=self, network=self, store=self.store, signer=signer, blobs=self._blobs, wal=log)
        report = node.driver._on_equivocation
        node.driver._on_equivocation = lambda first, second: self._report(report, first, second)
        relay, self._passed_on = node.gossip.relay, set()
        node.gossip.relay = lambda *message: self._pass_on(relay, *message)  # type: ignore[method-assign]
        self.node = node
        world.on_start(self)
        node.start()
        if node.driver.is_active and node.driver.core.height == node.ledger.height + 1 and log.records:
            world.count("a height was replayed from the log")

    def _crash(self) -> None:
        self._life += 1
        self.node = None
        self.connected.clear()
        torn = self._disk.torn_writes
        if not self._is_killed:
            self._disk.crash(self._world.dice)
        self.spare()
        if self._disk.torn_writes > torn:
            self._world.count("a write to log or signer state was torn")
        if self.loses_log and self._disk.lose("wal"):
            self._world.count("a log was lost")
        if self.store.crash(self._world.dice):
            self._world.count("a commit of the database was torn")
        self.store.reopen()
        self._world.on_crash(self)

    def crash(self) -> None:
        """Between two events."""
        if self.node is not None:
            self._crash()

    # -- what the node reports ----------------------------------------------------------------------------------------

    def _check_and_persist(self, decided: list[Decided]) -> None:
        for one in decided:
            self._world.on_persist(self, one)
        self.reach(Moment.DECISION)
        self._persist(decided)

    def _report(self, report: Callable[[Any, Any], None], first: Any, second: Any) -> None:
        self._world.on_evidence(self, first, second)
        report(first, second)

    def _pass_on(self, relay: Callable[..., None], channel: Channel, message: Message, source: PeerId | None) -> None:
        """Whatever a node passes on for the second time may go round for ever."""
        if isinstance(message, VoteMessage):
            if message in self._passed_on:
                raise Violation("storm", f"{self.name} passes on {message} for the second time")
            self._passed_on.add(message)
        relay(channel, message, source)

    # -- the Clock port -----------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return self._world.now_ms + self.skew_ms

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        return self._world.call_at(self._world.now_ms + max(0, delay_ms), partial(self._fire, self._life, action))

    def _fire(self, life: int, action: Callable[[], None]) -> None:
        if life == self._life and self.node is not None:
            self.handling = "timer"
            self.guard(action)

    # -- the Network port ---------------------------------------------------------------------------------------------

    def peers(self) -> list[PeerId]:
        return sorted(self.connected)

    def send(self, peer: PeerId, channel: Channel, message: bytes) -> bool:
        self.step()
        return peer in self.connected and self._world.transmit(self, peer, channel, message)

    def broadcast(self, channel: Channel, message: bytes, except_peer: PeerId | None = None) -> None:
        for peer in self.peers():
            if peer != except_peer:
                self.send(peer, channel, message)

    def penalize(self, peer: PeerId, points: int, reason: str) -> None:
        self._world.on_penalty(self, peer, points, reason)
