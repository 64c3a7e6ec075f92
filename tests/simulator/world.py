"""The virtual clock and network that carry one seed from its first event to height ten."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count
from random import Random

from flockchain.consensus.effects import RequestValue, ScheduleTimeout
from flockchain.consensus.messages import Proposal, Step
from flockchain.consensus.powers import ValidatorPowers
from flockchain.rotation import Rotation, compute_changed_rotation, compute_next_rotation, compute_proposer

from .app import App, ToyApp
from .equivocator import HOLD, PLOTS, Noise, Plot, Silence
from .faults import Faults, Network, draw_faults, draw_network, draw_powers
from .invariants import Invariants, Violation
from .replica import HEIGHTS, Crashed, Packet, Replica, as_timeout

SAFETY_MS = 30_000
SAFETY_HEIGHTS = 7
LIVENESS_MS = 120_000
EVENTS_LIMIT = 300_000
RESEND_MS = 400
TIMEOUTS_MS = {Step.PROPOSE: (300, 100), Step.PREVOTE: (100, 50), Step.PRECOMMIT: (100, 50)}

AppFactory = Callable[[str], App]


@dataclass(frozen=True)
class Outcome:
    """What one seed cost."""

    seed: int
    n: int
    events: int
    virtual_ms: int
    crashes: int
    highest_round: int
    heights: int = HEIGHTS

    @property
    def counts(self) -> dict[str, int]:
        """Nothing beyond the fields is counted here."""
        return {}


class World:
    """One network. `run()` returns an `Outcome` or raises `Violation`."""

    def __init__(
        self,
        seed: int,
        n: int,
        new_app: AppFactory = ToyApp,
        new_replica: type[Replica] = Replica,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.seed, self.n = seed, n
        self.rng = Random(f"{seed}/{n}")
        self.now = 0
        self.is_healed = False
        self.network: Network = draw_network(self.rng, n)
        self.faults: Faults = draw_faults(self.rng, n, SAFETY_MS)
        self._powers: dict[int, dict[bytes, int]] = {}
        self.equivocator = self.network.equivocator
        self.honest = tuple(address for address in self.network.addresses if address != self.equivocator)
        self.invariants = Invariants(self.powers_at, self.equivocator)
        self.values: dict[bytes, bytes] = {}
        self.replicas = {
            address: new_replica(address, self, partial(new_app, f"node{index}"))
            for index, address in enumerate(self.honest)
        }
        self._trace = trace
        self._forger = new_app("forger")  # the equivocator's own copy of the application, to build valid values with
        self._forger_height = 0
        self._rotations: list[Rotation] = [compute_changed_rotation(None, self.powers_at(1))]
        self._proposers: dict[tuple[int, int], bytes] = {}
        self._plots: dict[int, Plot] = {}
        self._entered: set[tuple[int, int]] = set()
        self._held: dict[int, list[tuple[bytes, bytes, Packet]]] = {}
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._will_fall_silent = self.rng.random() < 0.5
        self._crashes = 0
        self._highest_round = 0

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        for replica in self.replicas.values():
            self._guard(replica, replica.start)
            self._at(self.rng.randint(1, RESEND_MS), partial(self._tick, replica))
        for when, index, steps in self.faults.crashes:
            self._at(when, partial(self._doom, self.replicas[self.honest[index]], steps))
        deadline = SAFETY_MS
        while not self._is_finished():
            self.now, _, action = heappop(self._heap)
            if not self.is_healed and (self.now >= SAFETY_MS or self._best_height() >= SAFETY_HEIGHTS):
                self._heal()
                deadline = self.now + LIVENESS_MS
            action()
            if self.is_healed and (self.now > deadline or self._events() > EVENTS_LIMIT):
                heights = [replica.height for replica in self.replicas.values()]
                raise Violation("liveness", f"heights {heights} {LIVENESS_MS} ms after everything healed")
        return Outcome(self.seed, self.n, self._events(), self.now, self._crashes, self._highest_round)

    def _heal(self) -> None:
        self._say("everything heals")
        self.is_healed = True
        for height in list(self._held):
            self.release_held(height)
        for replica in self.replicas.values():
            replica.steps_to_crash = 0
            if not replica.is_up:
                self._guard(replica, replica.start)

    def _is_finished(self) -> bool:
        return self.is_healed and all(replica.height >= HEIGHTS for replica in self.replicas.values())

    def _best_height(self) -> int:
        return max(replica.height for replica in self.replicas.values())

    def _events(self) -> int:
        return sum(replica.events for replica in self.replicas.values())

    # -- time ---------------------------------------------------------------------------------------------------------

    def _at(self, when: int, action: Callable[[], None]) -> None:
        heappush(self._heap, (when, next(self._order), action))

    def start_timer(self, replica: Replica, timeout: ScheduleTimeout) -> None:
        base, step = TIMEOUTS_MS[timeout.step]
        when = self.now + base + step * timeout.round
        self._at(when, partial(self._in_life, replica, replica.life, partial(replica.feed, as_timeout(timeout))))
        if timeout.step is Step.PROPOSE:
            self._enter(timeout.height, timeout.round)

    def ask_value(self, replica: Replica, request: RequestValue) -> None:
        build = partial(replica.build_value, request.height, request.round)
        self._at(self.now + self.rng.randint(0, 20), partial(self._in_life, replica, replica.life, build))

    def start_next_height(self, replica: Replica) -> None:
        self._at(
            self.now + self.rng.randint(0, 10), partial(self._in_life, replica, replica.life, replica.start_height)
        )

    def _tick(self, replica: Replica) -> None:
        if replica.is_up:
            self._guard(replica, replica.tick)
        self._at(self.now + RESEND_MS, partial(self._tick, replica))

    # -- lives --------------------------------------------------------------------------------------------------------

    def _in_life(self, replica: Replica, life: int, action: Callable[[], None]) -> None:
        if replica.is_up and replica.life == life:
            self._guard(replica, action)

    def _guard(self, replica: Replica, action: Callable[[], None]) -> None:
        """Run a replica's code; where it crashes, it comes back after a while."""
        try:
            action()
        except Crashed:
            self._crashes += 1
            self._say(f"{replica.address[0]} crashes")
            replica.crash()
            self._at(self.now + self.rng.choice((1, 50, 1000)), partial(self._restart, replica))

    def _restart(self, replica: Replica) -> None:
        if not replica.is_up:
            self._say(f"{replica.address[0]} restarts")
            self._guard(replica, replica.start)

    def _doom(self, replica: Replica, steps: int) -> None:
        if not self.is_healed:
            replica.steps_to_crash = steps

    # -- the network --------------------------------------------------------------------------------------------------

    def broadcast(self, sender: bytes, packet: Packet) -> None:
        self._say(f"{sender[0]} sends {packet}")
        for message in packet:
            if isinstance(message, Proposal) and message.proposer == sender:
                self._plot_of(message.height).on_proposal(message)
        for target in self.honest:
            if target != sender:
                self.send(sender, target, packet)

    def send(self, sender: bytes, target: bytes, packet: Packet) -> None:
        """An honest packet: the plot may route it, ordinary faults decide otherwise."""
        rng = self.rng
        if target not in self.replicas:
            return
        if self.is_healed:
            self._deliver_after(rng.randint(1, 20), sender, target, packet)
            return
        route = self._plot_of(packet[0].height).route(sender, target, packet)
        if route == HOLD:
            self._held.setdefault(packet[0].height, []).append((sender, target, packet))
        elif route is not None:
            self._deliver_after(route, sender, target, packet)
        elif not self._is_cut(sender, target) and rng.random() >= self.faults.loss:
            for _ in range(2 if rng.random() < self.faults.duplication else 1):
                is_late = rng.random() < self.faults.tail
                self._deliver_after(
                    rng.randint(1, self.faults.tail_ms if is_late else self.faults.delay_ms), sender, target, packet
                )

    def send_direct(self, target: bytes, packet: Packet) -> None:
        """A packet of the equivocator: never lost, and always in time."""
        self._say(f"{self.equivocator[0]} tells {target[0]} {packet}")
        self._deliver_after(self.rng.randint(0, 3), self.equivocator, target, packet)

    def release_held(self, height: int) -> None:
        for sender, target, packet in self._held.pop(height, ()):
            self._deliver_after(self.rng.randint(1, 50), sender, target, packet)

    def _deliver_after(self, delay_ms: int, sender: bytes, target: bytes, packet: Packet) -> None:
        self._at(self.now + delay_ms, partial(self._deliver, sender, target, packet))

    def _deliver(self, sender: bytes, target: bytes, packet: Packet) -> None:
        replica = self.replicas[target]
        if replica.is_up:
            self._guard(replica, partial(replica.receive, sender, packet))

    def _is_cut(self, sender: bytes, target: bytes) -> bool:
        for begin, end, mask in self.faults.partitions:
            if begin <= self.now < end and (mask >> sender[0] - 1 & 1) != (mask >> target[0] - 1 & 1):
                return True
        return False

    # -- what everyone knows ------------------------------------------------------------------------------------------

    def powers_at(self, height: int) -> dict[bytes, int]:
        """The validator set of a height, in address order: members gain power, leave for a height and come back."""
        if height not in self._powers:
            self._powers[height] = draw_powers(Random(f"{self.seed}/{self.n}/{height}"), self.network)
        return self._powers[height]

    def validators_at(self, height: int) -> ValidatorPowers:
        powers = self.powers_at(height)
        return ValidatorPowers(tuple(powers), tuple(powers.values()))

    def proposer_of(self, height: int, round: int) -> bytes:
        key = (height, round)
        if key not in self._proposers:
            while len(self._rotations) < height:
                powers = self.powers_at(len(self._rotations) + 1)
                self._rotations.append(compute_changed_rotation(compute_next_rotation(self._rotations[-1]), powers))
            self._proposers[key] = compute_proposer(self._rotations[height - 1], round)
        return self._proposers[key]

    def put_value(self, value: bytes) -> bytes:
        """Keep a value's bytes where every receiver of its id finds them; returns the id."""
        value_id = sha256(value).digest()
        self.values[value_id] = value
        return value_id

    def is_timely(self, proposal: Proposal) -> bool:
        return self.is_healed or proposal.valid_round >= 0 or self.rng.random() >= self.faults.untimely

    def craft_value(self, height: int, round: int, is_valid: bool) -> bytes:
        """A value for the equivocator to propose."""
        longest = max(self.replicas.values(), key=lambda replica: replica.height)
        while self._forger_height < min(height - 1, longest.height):
            commit = longest.decided[self._forger_height]
            self._forger_height += 1
            self._forger.decide(self._forger_height, self.values[commit.value_id])
        is_possible = is_valid and self._forger_height == height - 1
        return self.put_value(self._forger.build(height, round) if is_possible else b"invalid %d" % next(self._order))

    # -- the plot -----------------------------------------------------------------------------------------------------

    def _enter(self, height: int, round: int) -> None:
        if (height, round) not in self._entered:
            self._entered.add((height, round))
            self._highest_round = max(self._highest_round, round)
            self._plot_of(height).on_round(round)

    def _plot_of(self, height: int) -> Plot:
        plot = self._plots.get(height)
        if plot is None or (self.is_healed and not isinstance(plot, (Noise, Silence))):
            kind = self.rng.choice(PLOTS) if not self.is_healed else Silence if self._will_fall_silent else Noise
            plot = self._plots[height] = kind(self, height)
            self._say(f"height {height}: the plot is {kind.__name__}")
            if not self.is_healed:
                self._at(self.now + 50, partial(self._watch_plot, plot))
        return plot

    def _watch_plot(self, plot: Plot) -> None:
        if plot.is_over:
            self.release_held(plot.height)
        else:
            self._at(self.now + 50, partial(self._watch_plot, plot))

    def _say(self, sentence: str) -> None:
        if self._trace is not None:
            self._trace(f"{self.now:>7} ms  {sentence}")
