"""A model of an honest node around the real core: log, signer, store, help for laggards.

What the real node does with files is done here with lists that know how much of them is on disk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from flockchain.consensus.core import Core
from flockchain.consensus.effects import (
    Decide,
    Effect,
    ReportEquivocation,
    RequestValue,
    ScheduleTimeout,
    SendProposal,
    SendVote,
)
from flockchain.consensus.events import (
    CertificateReceived,
    Event,
    ProposalReceived,
    StartHeight,
    Timeout,
    ValueReady,
    ValueReceived,
    VoteReceived,
)
from flockchain.consensus.messages import CommitCertificate, Message, PolkaCertificate, Proposal, Vote, VoteKind
from flockchain.consensus.powers import ValidatorPowers

from .app import App
from .invariants import Invariants

HEIGHTS = 10
EARLY_MESSAGES = 200
HELP_INTERVAL_MS = 50


@dataclass(frozen=True, slots=True)
class Status:
    """Which height a node works on. Without it nobody would help one that is behind and has nothing else to say:
    outside the validator set, or before its first vote."""

    height: int
    round: int


Packet = tuple[Message | Status, ...]


class Crashed(Exception):
    """The process died here; only what is on disk is left."""


class Surroundings(Protocol):
    """What a replica needs of its world."""

    rng: Random
    now: int
    values: dict[bytes, bytes]
    invariants: Invariants

    def broadcast(self, sender: bytes, packet: Packet) -> None: ...
    def send(self, sender: bytes, target: bytes, packet: Packet) -> None: ...
    def start_timer(self, replica: "Replica", timeout: ScheduleTimeout) -> None: ...
    def ask_value(self, replica: "Replica", request: RequestValue) -> None: ...
    def start_next_height(self, replica: "Replica") -> None: ...
    def is_timely(self, proposal: Proposal) -> bool: ...
    def proposer_of(self, height: int, round: int) -> bytes: ...
    def validators_at(self, height: int) -> ValidatorPowers: ...
    def put_value(self, value: bytes) -> bytes: ...


class Signer:
    """One signature per height, round and step; `persist` before it leaves."""

    def __init__(self) -> None:
        self._signed: dict[tuple[int, int, object], Vote | Proposal] = {}
        self._unsynced: list[tuple[int, int, object]] = []

    def sign(self, message: Vote | Proposal) -> Vote | Proposal:
        """The message to send: what was signed earlier for this height, round and step, if anything was."""
        key = (message.height, message.round, message.kind if isinstance(message, Vote) else Proposal)
        if key not in self._signed:
            self._signed[key] = message
            self._unsynced.append(key)
        return self._signed[key]

    def persist(self) -> None:
        self._unsynced.clear()

    def lose_unsynced(self) -> None:
        for key in self._unsynced:
            del self._signed[key]
        self._unsynced.clear()


class Log:
    """Write-ahead log of one height's events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._synced = 0

    def append(self, event: Event) -> None:
        self.events.append(event)

    def persist(self) -> None:
        self._synced = len(self.events)

    def truncate(self) -> None:
        self.events.clear()
        self._synced = 0

    def lose_unsynced(self, rng: Random) -> None:
        """A crash may still have written some of the tail."""
        del self.events[rng.randint(self._synced, len(self.events)) :]
        self._synced = len(self.events)


class Replica:
    """One honest validator."""

    def __init__(self, address: bytes, world: Surroundings, new_app: Callable[[], App]) -> None:
        self.address = address
        self.world = world
        self.signer = Signer()
        self.log = Log()
        self.decided: list[CommitCertificate] = []  # the store: block and certificate, atomic and durable
        self.life = 0
        self.is_up = False
        self.steps_to_crash = 0  # 0: no crash is near
        self.events = 0
        self._new_app = new_app
        self._ticked_height = 0
        self._is_replaying = False

    @property
    def height(self) -> int:
        """Decided heights."""
        return len(self.decided)

    # -- life and death -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or restart from disk: rebuild the state, then replay the log through a fresh core."""
        self.life += 1
        self.is_up = True
        self.core = Core(self.address, self.world.proposer_of)
        self.app = self._new_app()
        self.early: list[Message] = []
        self._helped: dict[tuple[bytes, int], int] = {}
        for height, commit in enumerate(self.decided, start=1):
            self.app.decide(height, self.world.values[commit.value_id])
        replayed = list(self.log.events)
        self._is_replaying = True
        for event in replayed:
            self._step(event)
        self._is_replaying = False
        if replayed:
            self.world.invariants.check_lock(self.address, self.core)
        else:
            self.start_height()

    def crash(self) -> None:
        self.is_up = False
        self.steps_to_crash = 0
        self.signer.lose_unsynced()
        self.log.lose_unsynced(self.world.rng)

    def start_height(self) -> None:
        """Begin the height after the last decided one."""
        if self.height >= HEIGHTS or self.core.height > self.height:
            return
        self.feed(StartHeight(self.height + 1, self.world.validators_at(self.height + 1)))
        early, self.early = self.early, []
        for message in early:
            self._receive_message(message)

    # -- what comes in ------------------------------------------------------------------------------------------------

    def receive(self, sender: bytes, packet: Packet) -> None:
        """Handle a peer's messages; if it is behind us, it gets the block it lacks."""
        for message in packet:
            if not isinstance(message, Status):
                self._receive_message(message)
        behind = packet[-1]
        is_merely_late = len(packet) == 1 and isinstance(behind, Vote) and behind.kind is VoteKind.PRECOMMIT
        if behind.height <= self.height and not is_merely_late and not isinstance(behind, CommitCertificate):
            self._help(sender, behind.height)

    def feed(self, event: Event) -> None:
        """Log first, then step, then perform. What comes after a decision is not needed to repeat it."""
        if self.core.decided is None or isinstance(event, StartHeight):
            self.log.append(event)
        self._step(event)

    def build_value(self, height: int, round: int) -> None:
        if (self.core.height, self.core.round, self.core.decided) == (height, round, None):
            self.feed(ValueReady(height, round, self.world.put_value(self.app.build(height, round))))

    def tick(self) -> None:
        """Send again while a height stays undecided."""
        if self.core.decided is None and self._ticked_height == self.core.height > 0:
            status = Status(self.core.height, self.core.round)
            self.world.broadcast(self.address, (*self.core.current_messages(), status))
        self._ticked_height = self.core.height

    def _receive_message(self, message: Message) -> None:
        if message.height == self.core.height:
            self._feed_message(message)
        elif message.height == self.core.height + 1 and len(self.early) < EARLY_MESSAGES:
            self.early.append(message)

    def _feed_message(self, message: Message) -> None:
        match message:
            case Vote():
                self.feed(VoteReceived(message))
            case Proposal(height=height, value_id=value_id) if self.core.decided is None:
                is_valid = self.app.validate(height, self.world.values[value_id])
                self.feed(ProposalReceived(message, is_valid, self.world.is_timely(message)))
            case PolkaCertificate():
                self.feed(CertificateReceived(message))
            case CommitCertificate(height=height, value_id=value_id) if self.core.decided is None:
                self.feed(CertificateReceived(message))
                if self.core.decided is None:
                    is_valid = self.app.validate(height, self.world.values[value_id])
                    self.feed(ValueReceived(height, value_id, is_valid))

    def _help(self, sender: bytes, height: int) -> None:
        """The sender works on a height we have decided: give it the block with its certificate."""
        if self.world.now >= self._helped.get((sender, height), -HELP_INTERVAL_MS) + HELP_INTERVAL_MS:
            self._helped[sender, height] = self.world.now
            self.world.send(self.address, sender, (self.decided[height - 1],))

    # -- what goes out ------------------------------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        self.events += 1
        effects = self.core.step(event)
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SendVote(message) | SendProposal(message):
                self._sign_and_send(message)
            case ScheduleTimeout():
                self.world.start_timer(self, effect)
            case RequestValue():
                self.world.ask_value(self, effect)
            case ReportEquivocation():
                self.world.invariants.check_evidence(effect)
            case Decide(height, _, value_id):
                self._decide(height, value_id)

    def _sign_and_send(self, message: Vote | Proposal) -> None:
        self._may_crash()
        self.log.persist()
        self._may_crash()
        signed = self.signer.sign(message)
        self._may_crash()
        self.signer.persist()
        self._may_crash()
        self.world.invariants.check_signature(signed)
        if not self._is_replaying:
            self.world.invariants.check_lock(self.address, self.core)
        packet: Packet = (signed,)
        if isinstance(signed, Proposal) and signed.valid_round >= 0:
            polka = self.core.polka(signed.height, signed.valid_round)
            assert polka is not None, "a re-proposal has its proof of lock"
            packet = (polka, signed)
        self.world.broadcast(self.address, packet)
        self._may_crash()

    def _decide(self, height: int, value_id: bytes) -> None:
        self._may_crash()
        value = self.world.values[value_id]
        commit = self.core.commit_certificate()
        assert commit is not None
        self.world.invariants.check_decision(height, value_id, self.app.validate(height, value), commit)
        self.decided.append(commit)
        self.log.truncate()
        self.app.decide(height, value)
        self.world.invariants.check_state(height, self.app.state_root(height))
        self.world.start_next_height(self)
        self._may_crash()

    def _may_crash(self) -> None:
        if self.steps_to_crash:
            self.steps_to_crash -= 1
            if not self.steps_to_crash:
                raise Crashed


def as_timeout(schedule: ScheduleTimeout) -> Timeout:
    """The event that a scheduled timeout becomes."""
    return Timeout(schedule.step, schedule.height, schedule.round)
