"""One network of real nodes, from its first event to the end of its liveness phase."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flockchain.node.messages import (
    BlockRequest,
    BlockResponse,
    Message,
    ProposalMessage,
    VoteMessage,
    decode_message,
)
from flockchain.node.ports import Channel, Decided, PeerId
from flockchain.node.sync import SILENT_POINTS
from flockchain.types.chain import SignedVote

from ...support.ledger import make_address
from ..invariants import Violation
from .adversary import PLOTS, Adversary, Held
from .clients import Clients
from .dice import Dice
from .genesis import PARAMS, Pen, key_of, make_genesis
from .heckler import INTERVAL_MS, Heckler
from .invariants import Invariants
from .machine import Machine
from .network import HOLD, LOSE, Links
from .outcome import Outcome
from .plots import Plot
from .scenario import SAFETY_HEIGHTS, SAFETY_MS, TOLERATED_SKEW_MS, Crash, Moment, Scenario, draw_scenario
from .timeline import Timeline

LIVENESS_MS = 120_000
LIVENESS_HEIGHTS = 3
EVENTS_LIMIT = 200_000
RAM = Path("/dev/shm")
"""Where the real SQLite files go, if the system has it."""


class World(Timeline):
    """`run` returns an `Outcome` or raises `Violation`."""

    safety_heights = SAFETY_HEIGHTS

    def __init__(
        self,
        seed: int,
        n: int,
        trace: Callable[[str], None] | None = None,
        scenario: Scenario | None = None,
        plots: Sequence[type[Plot]] = PLOTS,
    ) -> None:
        super().__init__(trace)
        self.scenario = scenario or draw_scenario(seed, n)
        self.dice = Dice("world", seed, n)
        self.is_healed = False
        self.counts: Counter[str] = Counter()
        self.genesis = make_genesis(self.scenario.powers)
        self.genesis_hash = self.genesis.hash()
        self.pen = Pen(self.genesis_hash)
        self.machines: dict[PeerId, Machine] = {}
        self._clients = Clients(self)
        self._events = 0
        self._decoded: dict[bytes, Message] = {}
        self._checked: set[tuple[PeerId, bytes]] = set()
        self._convicts: set[bytes] = set()
        """Whom an honest node saw signing twice after everything healed."""
        self._cleanup = ExitStack()
        self._goal = 0
        honest = [key_of(f"val{i}").address for i in self.scenario.honest]
        lead_ms = PARAMS.consensus.precision_ms + TOLERATED_SKEW_MS
        self.invariants = Invariants(self.genesis, frozenset(honest), lead_ms)
        self.sets = self.invariants.sets
        self._set_up(plots)

    def _set_up(self, plots: Sequence[type[Plot]]) -> None:
        scenario = self.scenario
        folder = None
        if scenario.is_on_files:
            place = RAM if RAM.is_dir() else None
            folder = Path(self._cleanup.enter_context(TemporaryDirectory(prefix="flock-sim-", dir=place)))
        for index in scenario.honest:
            machine = Machine(self, index, scenario.skews_ms[index], folder, index == scenario.loses_log)
            self.machines[machine.id] = machine
        faulty = {f"val{index}": make_address(f"node{index}") for index in scenario.byzantine}
        self.adversary = Adversary(self, faulty, self.pen, plots, scenario.falls_silent)
        self.heckler = Heckler(self, make_address("stranger"), self.adversary)
        numbers = {make_address(f"node{index}"): index for index in range(scenario.n)}
        numbers[self.heckler.peer] = scenario.n
        self.links = Links(self, numbers)

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        with self._cleanup:
            try:
                self._begin()
                self._run()
            finally:
                if self.scenario.is_on_files:
                    for machine in self.machines.values():
                        machine.store.close()
        return self.make_outcome()

    def make_outcome(self) -> Outcome:
        counts = {name: number for name, number in sorted(self.counts.items()) if number}
        heights = max(machine.store.height for machine in self.machines.values())
        return Outcome(self.scenario.seed, self.scenario.n, self._events, self.elapsed_ms, heights, counts, self.digest)

    def _begin(self) -> None:
        scenario = self.scenario
        if scenario.is_on_files:
            self.count("stores were SQLite files")
        if scenario.missing:
            self.count("not everyone was connected to everyone")
        if any(abs(skew) > TOLERATED_SKEW_MS for skew in scenario.skews_ms):
            self.count("a clock was far off")
        for machine in self.machines.values():
            machine.start()
        for peer in self.machines:
            self.links.connect_to_all(peer)
        by_index = {index: self.machines[make_address(f"node{index}")] for index in scenario.honest}
        for crash in scenario.crashes:
            if crash.node in by_index:
                self.call_in(crash.when_ms, partial(self._doom, by_index[crash.node], crash))
        for when_ms, one, other in scenario.resets:
            self.call_in(when_ms, partial(self._reset, make_address(f"node{one}"), make_address(f"node{other}")))
        self.call_in(scenario.clocks_right_ms, self._set_clocks_right)
        self._clients.begin()
        self.call_in(INTERVAL_MS, self._heckle)

    def _run(self) -> None:
        deadline_ms = SAFETY_MS
        while not self._is_finished():
            action = self.advance()
            if not self.is_healed and (self.elapsed_ms >= SAFETY_MS or self._best_height() >= self.safety_heights):
                self._heal()
                deadline_ms = self.elapsed_ms + LIVENESS_MS
            self._events += 1
            action()
            if self.is_healed and (self.elapsed_ms > deadline_ms or self._events > EVENTS_LIMIT):
                self._give_up()
            if self._events > EVENTS_LIMIT:
                raise Violation("storm", f"{self._events} events within {self.elapsed_ms} ms: messages go round")

    def _heal(self) -> None:
        self.note("everything heals")
        self.is_healed = True
        self._goal = self._best_height() + LIVENESS_HEIGHTS
        self.adversary.heal()
        for machine in self.machines.values():
            machine.skew_ms = 0
            machine.spare()
            if machine.node is None:
                machine.start()
        for peer in self.machines:
            self.links.connect_to_all(peer)
        self._clients.on_healed()

    def _is_finished(self) -> bool:
        return (
            self.is_healed
            and all(machine.store.height >= self._goal for machine in self.machines.values())
            and self._clients.wishes_left == set()
            and self._convicts <= self.invariants.tombstoned
        )

    def _give_up(self) -> None:
        heights = [machine.store.height for machine in self.machines.values()]
        after = f"{LIVENESS_MS} ms after everything healed"
        if min(heights) < self._goal:
            raise Violation("liveness", f"heights {heights}, not {self._goal}, {after}")
        if self._clients.wishes_left != set():
            raise Violation("inclusion", f"of {len(self.machines)} transactions some are in no block {after}")
        raise Violation("punishment", f"{len(self._convicts)} were seen signing twice and not all punished {after}")

    def _best_height(self) -> int:
        return max(machine.store.height for machine in self.machines.values())

    def count(self, what: str) -> None:
        self.counts[what] += 1

    # -- faults -------------------------------------------------------------------------------------------------------

    def _doom(self, machine: Machine, crash: Crash) -> None:
        if not self.is_healed:
            self.count(f"a crash was planned for when {crash.moment.value}")
            machine.doom(crash.moment, crash.calls)

    def _set_clocks_right(self) -> None:
        for machine in self.machines.values():
            if abs(machine.skew_ms) > TOLERATED_SKEW_MS:
                machine.skew_ms = 0

    def _reset(self, one: PeerId, other: PeerId) -> None:
        self.count("a connection broke")
        self.links.disconnect(one, other)
        self.call_in(self.dice.between(50, 1_000), partial(self.links.connect, one, other))

    def on_crash(self, machine: Machine) -> None:
        self.note(machine.name, "crashes")
        self.count("a node crashed")
        self.links.disconnect_from_all(machine.id)
        self.call_in(self.dice.pick((1, 50, 1_000)), partial(self._restart, machine))

    def _restart(self, machine: Machine) -> None:
        if machine.node is None:
            self.note(machine.name, "restarts")
            machine.start()
            self.links.connect_to_all(machine.id)

    def _heckle(self) -> None:
        if not self.is_healed or not self.scenario.falls_silent:
            self.heckler.act()
            self.call_in(self.dice.between(1, 2 * INTERVAL_MS), self._heckle)

    # -- what machines do ---------------------------------------------------------------------------------------------

    def on_start(self, machine: Machine) -> None:
        self.note(machine.name, "starts at", machine.store.height)

    def on_progress(self, machine: Machine) -> None:
        core = machine.running.driver.core
        if machine.running.driver.is_active and core.height in self.sets:
            if core.round and (key := f"round {core.round}") not in self.counts:
                self.count(key)
            self.adversary.on_progress(machine, core.height, core.round)

    def on_persist(self, machine: Machine, decided: Decided) -> None:
        block, commit, outcome = decided
        self.note(machine.name, "decides", block.height, commit.round, len(block.txs), len(commit.signatures))
        self.invariants.check_decided(decided, self.now_ms)
        self._clients.on_included(result.hash for result in outcome.results)
        self.adversary.on_decided(machine, block.height)
        core = machine.running.driver.core
        if core.height == block.height and core.decided is not None:
            self.count("a height was decided by consensus")
        else:
            self.count(f"a height was learnt by {'a decision' if machine.handling == 'Decision' else 'block sync'}")
        if commit.round:
            self.count("a height was decided after round 0")

    def on_evidence(self, machine: Machine, first: Any, second: Any) -> None:
        is_vote = isinstance(first, SignedVote)
        offender = first.validator if is_vote else first.proposer
        steps = [(m.body.height, m.body.round, m.body.kind if is_vote else 0) for m in (first, second)]
        is_proof = steps[0] == steps[1] and first.body.block_id != second.body.block_id
        self.invariants.check_evidence(offender, is_proof)
        self.count("an equivocation was found")
        if self.is_healed:
            self._convicts.add(offender)

    def on_penalty(self, machine: Machine, peer: PeerId, points: int, reason: str) -> None:
        self.note(machine.name, "blames", points, reason.split(":")[0].split(" ")[0])
        if peer in self.machines and points > SILENT_POINTS:
            raise Violation("honest peer blamed", f"{machine.name} blames {self.machines[peer].name}: {reason}")
        self.links.blame(machine, peer, points)

    def transmit(self, sender: Machine, target: PeerId, channel: Channel, data: bytes) -> bool:
        message = self.decode(channel, data)
        if (sender.id, data) not in self._checked:
            self._checked.add((sender.id, data))
            self._check_own(sender, message)
        if target not in self.machines:
            if target == self.heckler.peer or isinstance(message, BlockRequest):
                self.heckler.hear(sender.id, channel, message, data)
            return True
        route_ms = None if self.is_healed else self.adversary.route(sender, target, message, channel, data)
        if route_ms not in (HOLD, LOSE):
            self.links.send(sender.id, target, channel, data, route_ms)
        return True

    def _check_own(self, sender: Machine, message: Message) -> None:
        """What a node says for the first time in its own name."""
        signed: list[Any] = []
        if isinstance(message, VoteMessage):
            signed = [vote for vote in message.votes if vote.validator == sender.key.address]
        elif isinstance(message, ProposalMessage) and message.proposal.proposer == sender.key.address:
            signed = [message.proposal]
            self.adversary.hear(message)
            if message.proposal.body.valid_round >= 0:
                self.count("a locked value was proposed again")
        elif isinstance(message, BlockResponse):
            self.count("a block request was served")
        for one in signed:
            self.invariants.check_signature(one)
        if not signed:
            return
        sender.reach(Moment.SIGNATURE)
        if not sender.running.driver._is_replaying and not sender.loses_log:
            self.invariants.check_lock(sender.key.address, sender.running)

    def send_direct(self, sender: PeerId, target: PeerId, channel: Channel, data: bytes) -> None:
        """A faulty peer's message: never lost, and always in time."""
        self.links.deliver_after(self.dice.between(0, 3), sender, target, channel, data)

    def release(self, held: Sequence[Held]) -> None:
        for sender, target, channel, data in held:
            self.links.deliver_after(self.dice.between(1, 50), sender.id, target, channel, data)

    def kind_of(self, data: bytes) -> str:
        """Name of an honest message; those of others are not looked at."""
        return type(self._decoded.get(data)).__name__

    def decode(self, channel: Channel, data: bytes) -> Message:
        """What `decode_message` says, each message of this network once."""
        message = self._decoded.get(data)
        if message is None:
            message = self._decoded[data] = decode_message(channel, data)
        return message
