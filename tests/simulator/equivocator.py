"""The one dishonest validator, who also schedules the network while faults are on.

It reads every message when it is sent and knows everything but cannot sign for anyone else.
"""

from collections.abc import Sequence
from random import Random
from typing import Protocol

from flockchain.consensus.messages import PolkaCertificate, Proposal, Vote, VoteKind

from .replica import Packet

HOLD = -1
"""A route's answer: keep the packet until the plot is over. None: the ordinary network decides."""
PLOT_LIMIT_MS = 10_000
PREVOTE, PRECOMMIT = VoteKind.PREVOTE, VoteKind.PRECOMMIT


class Stage(Protocol):
    """What the equivocator needs of the world."""

    rng: Random
    now: int
    honest: tuple[bytes, ...]
    equivocator: bytes
    is_healed: bool

    def send_direct(self, target: bytes, packet: Packet) -> None: ...
    def proposer_of(self, height: int, round: int) -> bytes: ...
    def powers_at(self, height: int) -> dict[bytes, int]: ...
    def craft_value(self, height: int, round: int, is_valid: bool) -> bytes: ...
    def release_held(self, height: int) -> None: ...


class Plot:
    """What the equivocator does at one height."""

    def __init__(self, stage: Stage, height: int) -> None:
        self.stage, self.height = stage, height
        self.ends_at = stage.now + PLOT_LIMIT_MS

    @property
    def is_over(self) -> bool:
        return self.stage.now >= self.ends_at or self.stage.is_healed

    def on_round(self, round: int) -> None:
        """The first honest node entered a round."""

    def on_proposal(self, proposal: Proposal) -> None:
        """An honest node sent a proposal."""

    def route(self, sender: bytes, target: bytes, packet: Packet) -> int | None:
        """Delay in ms for an honest packet, `HOLD`, or None."""
        return None

    def is_my_turn(self, round: int) -> bool:
        return self.stage.proposer_of(self.height, round) == self.stage.equivocator

    def propose(self, targets: Sequence[bytes], round: int, value_id: bytes, valid_round: int = -1) -> None:
        proposal = Proposal(self.height, round, value_id, valid_round, self.stage.equivocator)
        for target in targets:
            self.stage.send_direct(target, (proposal,))

    def vote(self, targets: Sequence[bytes], kind: VoteKind, round: int, value_id: bytes | None) -> None:
        vote = Vote(kind, self.height, round, value_id, self.stage.equivocator)
        for target in targets:
            self.stage.send_direct(target, (vote,))

    def craft(self, round: int, is_valid: bool = True) -> bytes:
        return self.stage.craft_value(self.height, round, is_valid)


class Silence(Plot):
    """Does nothing: the others must do without it."""


class Noise(Plot):
    """Random conflicting votes and proposals, lies about valid rounds, invalid values."""

    def on_round(self, round: int) -> None:
        rng = self.stage.rng
        if not self.is_my_turn(round) or rng.random() < 0.2:
            return
        values = [self.craft(round, is_valid=rng.random() < 0.8) for _ in range(2)]
        for target in self.stage.honest:
            for value_id in rng.sample(values, rng.choice((1, 1, 2))):
                self.propose([target], round, value_id, rng.choice((-1, -1, round - 1)))
        self._vote_randomly(round, values)

    def on_proposal(self, proposal: Proposal) -> None:
        if self.stage.rng.random() < 0.7:
            self._vote_randomly(proposal.round, [proposal.value_id])

    def _vote_randomly(self, round: int, values: list[bytes]) -> None:
        rng = self.stage.rng
        for kind in VoteKind:
            for target in self.stage.honest:
                for value_id in rng.sample([None, *values], rng.choice((0, 1, 1, 2))):
                    self.vote([target], kind, round, value_id)


class IsolateDeciders(Plot):
    """Round 0: a few nodes decide v and nobody hears of it; then the others, locked on v, are offered another value.

    Some of the others are kept blind in round 0, so that the decision hangs on the equivocator's own precommit,
    whose nil twin the others have seen first.
    """

    def __init__(self, stage: Stage, height: int) -> None:
        super().__init__(stage, height)
        self._power_of = {address: stage.powers_at(height).get(address, 0) for address in stage.honest}
        self._power_of[stage.equivocator] = stage.powers_at(height)[stage.equivocator]
        self._deciders = self._choose_deciders()
        self._others = [address for address in stage.honest if address not in self._deciders]
        self._blind = self._choose_blind() if stage.rng.random() < 0.6 else []
        if not self._deciders or not self._others:
            self.ends_at = stage.now

    def on_round(self, round: int) -> None:
        if self.is_over:
            return
        if round == 0:
            if self.is_my_turn(0):
                value_id = self.craft(0)
                self.propose([t for t in self.stage.honest if t not in self._blind], 0, value_id)
                self._support(value_id)
        elif self.is_my_turn(round):
            value_id = self.craft(round)
            self.propose(self._others, round, value_id, self.stage.rng.choice((-1, round - 1)))
            self.vote(self._others, PREVOTE, round, value_id)
            self.vote(self._others, PRECOMMIT, round, value_id)
            self.ends_at = self.stage.now + 1000
        else:
            self.vote(self._others, PREVOTE, round, None)
            self.vote(self._others, PRECOMMIT, round, None)

    def on_proposal(self, proposal: Proposal) -> None:
        if proposal.round == 0 and not self.is_over:
            self._support(proposal.value_id)

    def route(self, sender: bytes, target: bytes, packet: Packet) -> int | None:
        if self.is_over:
            return None
        proposals = [message for message in packet if isinstance(message, Proposal)]
        if target in self._deciders:
            return HOLD if any(proposal.round > 0 for proposal in proposals) else self.stage.rng.randint(1, 5)
        is_hint = sender in self._deciders and not all(
            isinstance(message, (Proposal, Vote))
            and message.round == 0
            and (isinstance(message, Proposal) or message.kind is PREVOTE)
            for message in packet
        )
        is_late_proposal = any(proposal.round > 0 for proposal in proposals)
        if is_hint or is_late_proposal or (proposals and target in self._blind):
            return HOLD
        return self.stage.rng.randint(1, 5)

    def _support(self, value_id: bytes) -> None:
        self.vote(self.stage.honest, PREVOTE, 0, value_id)
        self.vote(self._others, PRECOMMIT, 0, None)
        self.vote(self._deciders, PRECOMMIT, 0, value_id)

    def _choose_deciders(self) -> list[bytes]:
        """As few as leave the others without a quorum of their own, but with one together with the equivocator."""
        power_of = self._power_of
        mine, rest = power_of[self.stage.equivocator], sum(power_of[address] for address in self.stage.honest)
        total, deciders = mine + rest, []
        for address in self.stage.rng.sample(self.stage.honest, len(self.stage.honest)):
            if 3 * rest <= 2 * total:
                break
            if 3 * (rest + mine - power_of[address]) > 2 * total:
                deciders.append(address)
                rest -= power_of[address]
        if not deciders:  # the others never had a quorum: one is enough
            fitting = [a for a in self.stage.honest if 3 * (rest + mine - power_of[a]) > 2 * total]
            deciders = [self.stage.rng.choice(fitting)] if fitting else []
        return deciders

    def _choose_blind(self) -> list[bytes]:
        power_of = self._power_of
        total = sum(power_of.values())
        seeing, blind = total, []
        proposer = self.stage.proposer_of(self.height, 0)
        for address in self._others:
            if address != proposer and 3 * (seeing - power_of[address]) > 2 * total:
                blind.append(address)
                seeing -= power_of[address]
        return blind


class Straddle(Plot):
    """Two halves, two values, one voter in both. Until its turn comes, nobody's proposal gets through."""

    def __init__(self, stage: Stage, height: int) -> None:
        super().__init__(stage, height)
        shuffled = stage.rng.sample(stage.honest, len(stage.honest))
        cut = len(shuffled) // 2
        self._halves = (shuffled[:cut], shuffled[cut:])
        self._is_cut = False

    def on_round(self, round: int) -> None:
        if self.is_over or self._is_cut:
            return
        if not self.is_my_turn(round):
            for kind in VoteKind:
                self.vote(self.stage.honest, kind, round, None)
            return
        self._is_cut = True
        self.ends_at = self.stage.now + 1500
        for half in self._halves:
            value_id = self.craft(round)
            self.propose(half, round, value_id)
            for kind in VoteKind:
                self.vote(half, kind, round, value_id)

    def route(self, sender: bytes, target: bytes, packet: Packet) -> int | None:
        if self.is_over:
            return None
        if self._is_cut:
            is_across = (sender in self._halves[0]) != (target in self._halves[0])
            return HOLD if is_across else self.stage.rng.randint(1, 5)
        is_proposal = any(isinstance(message, (Proposal, PolkaCertificate)) for message in packet)
        return HOLD if is_proposal else self.stage.rng.randint(1, 5)


PLOTS: tuple[type[Plot], ...] = (Noise, Noise, IsolateDeciders, IsolateDeciders, Straddle)
