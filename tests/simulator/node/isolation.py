"""Plots that keep apart who decides and who is locked, so that whoever forgets a lock is soon seen to."""

from flockchain.node.messages import Decision, Message, ProposalMessage, VoteMessage
from flockchain.node.ports import PeerId
from flockchain.types.chain import PRECOMMIT, PREVOTE

from .machine import Machine
from .network import HOLD, LOSE
from .plots import NIL, Plot, Stage, round_of
from .scenario import Moment


class IsolateDeciders(Plot):
    """Round 0: a few nodes decide v and nobody hears of it; then the others, locked on v, are offered another block.

    Some of the others are kept blind in round 0, so that the decision hangs on the plotters' own precommits. The nil
    twins of these the others have seen first; amnesiacs sign no twins, they only forget.
    """

    schedules = True
    is_amnesic = False

    def __init__(self, stage: Stage, height: int) -> None:
        super().__init__(stage, height)
        powers = stage.members(height)
        self._power_of = {machine.id: powers.get(machine.name, 0) for machine in stage.machines}
        self._mine = sum(powers[name] for name in self.cast)
        self._total = sum(powers.values())
        self.deciders = self._choose_deciders()
        self.others = [peer for peer in self.everyone if peer not in self.deciders]
        self._blind = self._choose_blind() if stage.dice.chance(60) else []
        if not self.deciders or not self.others:
            self.ends_ms = stage.now_ms

    def on_round(self, round: int) -> None:
        if self.is_over:
            return
        proposer = self.turn(round)
        if proposer is None:
            if round:
                self.vote_both(self.others, round, NIL)
            return
        block = self.stage.craft(self.height, proposer)
        if block is None:
            return
        if round == 0:
            self._support(self.propose([peer for peer in self.everyone if peer not in self._blind], 0, block))
            return
        block_id = self.propose(self.others, round, block, self.stage.dice.pick((-1, round - 1)))
        self.vote_both(self.others, round, block_id)
        self.ends_ms = min(self.ends_ms, self.stage.now_ms + 1_000)

    def on_proposal(self, message: ProposalMessage) -> None:
        if self.is_over:
            return
        body = message.proposal.body
        if body.round == 0:
            self._support(body.block_id)
        elif self.is_amnesic:
            self.vote_both(self.others, body.round, body.block_id)

    def route(self, sender: Machine, target: PeerId, message: Message) -> int | None:
        near_ms = self.stage.dice.between(1, 5)
        round = round_of(message)
        is_proposal = isinstance(message, ProposalMessage)
        if target in self.deciders:
            return HOLD if is_proposal and round else near_ms
        votes = message.votes if isinstance(message, VoteMessage) else ()
        is_first = round == 0 and all(vote.body.kind == PREVOTE for vote in votes)
        is_hint = sender.id in self.deciders and not is_first
        is_late_proposal = is_proposal and round > 0 and not self.is_amnesic
        if is_hint or is_late_proposal or isinstance(message, Decision) or (is_proposal and target in self._blind):
            return HOLD
        return near_ms

    def _support(self, block_id: bytes) -> None:
        self.vote(self.everyone, PREVOTE, 0, block_id)
        self.vote(self.others, PRECOMMIT, 0, block_id if self.is_amnesic else NIL)
        self.vote(self.deciders, PRECOMMIT, 0, block_id)

    def _choose_deciders(self) -> list[PeerId]:
        """As few as leave the others without a quorum of their own, but with one together with the plotters."""
        rest, deciders = self._total - self._mine, []
        for peer in self.stage.dice.shuffled(self.everyone):
            if 3 * rest <= 2 * self._total:
                break
            if 3 * (rest + self._mine - self._power_of[peer]) > 2 * self._total:
                deciders.append(peer)
                rest -= self._power_of[peer]
        if not deciders:  # the others never had a quorum: one is enough
            fitting = [p for p in self.everyone if 3 * (rest + self._mine - self._power_of[p]) > 2 * self._total]
            deciders = [self.stage.dice.pick(fitting)] if fitting else []
        return deciders

    def _choose_blind(self) -> list[PeerId]:
        seeing, blind = self._total, []
        proposer = self.stage.proposer_of(self.height, 0)
        names = {machine.id: machine.name for machine in self.stage.machines}
        for peer in self.others:
            if names[peer] != proposer and 3 * (seeing - self._power_of[peer]) > 2 * self._total:
                blind.append(peer)
                seeing -= self._power_of[peer]
        return blind


class Amnesia(IsolateDeciders):
    """The same without a single double signature: what was precommitted is forgotten in the next round."""

    is_amnesic = True


class Blackout(IsolateDeciders):
    """The same, and one falls at the worst moment: its precommit has just left, or it is about to persist a decision.

    When it is back, the network keeps from it what was said in round 0. What it says next shows whether it remembers.
    Before a decision is persisted the process alone dies: a log that it had emptied by then is empty.
    """

    def __init__(self, stage: Stage, height: int) -> None:
        super().__init__(stage, height)
        self._falls_deciding = stage.dice.chance(50)
        candidates = self.deciders if self._falls_deciding else self.others
        self._victim = stage.dice.pick(candidates) if candidates else None
        self._has_fallen = False

    def on_decided(self, machine: Machine) -> None:
        if self._falls_deciding and machine.id == self._victim:
            self._fell(machine, calls=1)

    def route(self, sender: Machine, target: PeerId, message: Message) -> int | None:
        if not self._falls_deciding and sender.id == self._victim and _holds_precommit(sender, message):
            self._fell(sender, calls=self.stage.dice.between(1, 3))
        if self._has_fallen and target == self._victim and round_of(message) == 0:
            return HOLD
        return super().route(sender, target, message)

    def _fell(self, machine: Machine, calls: int) -> None:
        """Let it fall at one of its next calls, once."""
        if not self._has_fallen and not self.is_over:
            self._has_fallen = True
            self.stage.count(f"felled {'before it persisted' if self._falls_deciding else 'after its precommit left'}")
            machine.doom(Moment.NOW, calls, is_killed=self._falls_deciding)


class Strand(Plot):
    """One node alone hears how round 0 ended, and goes on; without it the others have too little power to end it.

    Nobody sees a proposal, so all precommit nil; those precommits reach that node and are lost to the rest. What then
    takes the others along is help alone: the node ahead has no third of the power, and the plotters say nothing.
    """

    schedules = True

    def __init__(self, stage: Stage, height: int) -> None:
        super().__init__(stage, height)
        powers = stage.members(height)
        total = sum(powers.values())
        honest = sum(powers.get(machine.name, 0) for machine in stage.machines)
        candidates = [
            machine.id
            for machine in stage.machines
            if 3 * (power := powers.get(machine.name, 0)) <= total and 3 * (honest - power) <= 2 * total
        ]
        self._ahead = stage.dice.pick(candidates) if candidates else None
        if self._ahead is None:
            self.ends_ms = stage.now_ms

    def on_enter(self, machine: Machine, round: int) -> None:
        if machine.id == self._ahead and round and not self.is_over:
            self.stage.count("one went a round ahead of all others")
            self.ends_ms = min(self.ends_ms, self.stage.now_ms + 300)

    def route(self, sender: Machine, target: PeerId, message: Message) -> int | None:
        votes = message.votes if isinstance(message, VoteMessage) else ()
        is_end_of_round = target != self._ahead and any(vote.body.kind == PRECOMMIT for vote in votes)
        return LOSE if is_end_of_round or isinstance(message, ProposalMessage) else self.stage.dice.between(1, 5)


def _holds_precommit(sender: Machine, message: Message) -> bool:
    """The sender's own in round 0, for a block."""
    return isinstance(message, VoteMessage) and any(
        vote.validator == sender.key.address
        and (vote.body.kind, vote.body.round) == (PRECOMMIT, 0)
        and vote.body.block_id
        for vote in message.votes
    )
