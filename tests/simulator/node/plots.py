"""What the faulty validators do at one height. They see every message when it is sent, and act as one.

Undirected chaos rarely meets the few orders of events in which a rule matters, so a plot also says how long messages
of its height take, or holds them back until it is over.
"""

from collections.abc import Sequence
from typing import Protocol

from flockchain.codec import encode
from flockchain.node.messages import Decision, Message, ProposalMessage, VoteMessage
from flockchain.node.ports import PeerId
from flockchain.types.chain import PRECOMMIT, PREVOTE, Block, ProposalBody, SignedVote, VoteBody

from .dice import Dice
from .machine import Machine
from .network import HOLD

PLOT_LIMIT_MS = 6_000
NIL = b""
KINDS = (PREVOTE, PRECOMMIT)


class Stage(Protocol):
    """What a plot needs of the adversary."""

    dice: Dice
    now_ms: int
    machines: Sequence[Machine]
    """Honest ones, whether they are up or not."""
    is_healed: bool

    def count(self, what: str) -> None: ...
    def members(self, height: int) -> dict[str, int]: ...
    def faulty_members(self, height: int) -> list[str]: ...
    def proposer_of(self, height: int, round: int) -> str: ...
    def craft(self, height: int, proposer: str) -> Block | None: ...
    def spoil(self, block: Block) -> Block: ...
    def propose(self, targets: Sequence[PeerId], body: ProposalBody, block: Block, proposer: str) -> None: ...
    def vote(self, targets: Sequence[PeerId], body: VoteBody, names: Sequence[str]) -> None: ...


class Plot:
    """At one height. The plain one does nothing: the others must do without the faulty validators."""

    schedules = False
    """Whether it also schedules the network."""

    def __init__(self, stage: Stage, height: int) -> None:
        self.stage, self.height = stage, height
        self.ends_ms = stage.now_ms + PLOT_LIMIT_MS
        self.everyone = [machine.id for machine in stage.machines]
        self.cast = stage.faulty_members(height)

    @property
    def is_over(self) -> bool:
        return self.stage.is_healed or self.stage.now_ms >= self.ends_ms or not self.cast

    def on_round(self, round: int) -> None:
        """The first honest node entered a round."""

    def on_enter(self, machine: Machine, round: int) -> None:
        """This honest node entered a round."""

    def on_proposal(self, message: ProposalMessage) -> None:
        """An honest node sent a proposal."""

    def on_decided(self, machine: Machine) -> None:
        """This honest node is about to persist the block of this height."""

    def route(self, sender: Machine, target: PeerId, message: Message) -> int | None:
        """Delay in ms for an honest message, `HOLD`, `LOSE`, or None."""
        return None

    # -- verbs --------------------------------------------------------------------------------------------------------

    def turn(self, round: int) -> str | None:
        """The faulty validator that proposes this round, if one does."""
        proposer = self.stage.proposer_of(self.height, round)
        return proposer if proposer in self.cast else None

    def propose(self, targets: Sequence[PeerId], round: int, block: Block, valid_round: int = -1) -> bytes:
        proposer, block_id = self.stage.proposer_of(self.height, round), block.block_id()
        self.stage.propose(targets, ProposalBody(self.height, round, block_id, valid_round), block, proposer)
        return block_id

    def vote(self, targets: Sequence[PeerId], kind: int, round: int, block_id: bytes) -> None:
        self.stage.vote(targets, VoteBody(kind, self.height, round, block_id), self.cast)

    def vote_both(self, targets: Sequence[PeerId], round: int, block_id: bytes) -> None:
        for kind in KINDS:
            self.vote(targets, kind, round, block_id)


class Obey(Plot):
    """Proposes and votes like an honest validator that trusts everyone."""

    def on_round(self, round: int) -> None:
        proposer = self.turn(round)
        block = self.stage.craft(self.height, proposer) if proposer else None
        if block is not None:
            self.vote_both(self.everyone, round, self.propose(self.everyone, round, block))

    def on_proposal(self, message: ProposalMessage) -> None:
        body = message.proposal.body
        self.vote_both(self.everyone, body.round, body.block_id)


class Withhold(Obey):
    """Speaks to some only, now and then."""

    def on_round(self, round: int) -> None:
        self._choose()
        super().on_round(round)

    def on_proposal(self, message: ProposalMessage) -> None:
        self._choose()
        super().on_proposal(message)

    def _choose(self) -> None:
        self.stage.count("withheld a message from some")
        self.everyone = self.stage.dice.some([machine.id for machine in self.stage.machines], 40)


class Noise(Plot):
    """Random conflicting votes and proposals, lies about valid rounds, wrong blocks."""

    def on_round(self, round: int) -> None:
        dice, proposer = self.stage.dice, self.turn(round)
        if proposer is None or dice.chance(20):
            return
        blocks = [block for _ in range(2) if (block := self.stage.craft(self.height, proposer)) is not None]
        if not blocks:
            return
        if dice.chance(30):
            blocks[-1] = self.stage.spoil(blocks[-1])
        for target in self.everyone:
            for block in blocks if dice.chance(33) else [dice.pick(blocks)]:
                self.propose([target], round, block, dice.pick((-1, -1, round - 1)))
        self._vote_randomly(round, [block.block_id() for block in blocks])

    def on_proposal(self, message: ProposalMessage) -> None:
        if self.stage.dice.chance(70):
            self._vote_randomly(message.proposal.body.round, [message.proposal.body.block_id])

    def _vote_randomly(self, round: int, block_ids: list[bytes]) -> None:
        dice = self.stage.dice
        for kind in KINDS:
            for target in self.everyone:
                for block_id in dice.shuffled([NIL, *block_ids])[: dice.pick((0, 1, 1, 2))]:
                    self.vote([target], kind, round, block_id)


class Spoil(Plot):
    """Proposes blocks that may not come next, votes for them, and else obeys."""

    def on_round(self, round: int) -> None:
        proposer = self.turn(round)
        block = self.stage.craft(self.height, proposer) if proposer else None
        if block is not None:
            self.vote_both(self.everyone, round, self.propose(self.everyone, round, self.stage.spoil(block)))

    def on_proposal(self, message: ProposalMessage) -> None:
        body = message.proposal.body
        self.vote_both(self.everyone, body.round, body.block_id)


class Straddle(Plot):
    """Two halves, two blocks, the plotters in both. Until their turn comes, nobody's proposal gets through."""

    schedules = True

    def __init__(self, stage: Stage, height: int) -> None:
        super().__init__(stage, height)
        shuffled = stage.dice.shuffled(self.everyone)
        cut = len(shuffled) // 2
        self.halves = (shuffled[:cut], shuffled[cut:])
        self._is_cut = False

    def on_round(self, round: int) -> None:
        if self.is_over or self._is_cut:
            return
        proposer = self.turn(round)
        if proposer is None:
            self.vote_both(self.everyone, round, NIL)
            return
        self._is_cut = True
        self.ends_ms = min(self.ends_ms, self.stage.now_ms + 1_500)
        for half in self.halves:
            block = self.stage.craft(self.height, proposer)
            if block is not None:
                self.vote_both(half, round, self.propose(half, round, block))

    def route(self, sender: Machine, target: PeerId, message: Message) -> int | None:
        if self._is_cut:
            is_across = (sender.id in self.halves[0]) != (target in self.halves[0])
            return HOLD if is_across else self.stage.dice.between(1, 5)
        return HOLD if isinstance(message, ProposalMessage) else self.stage.dice.between(1, 5)


def round_of(message: Message) -> int:
    """Of the height in progress; 0 for a decision."""
    match message:
        case ProposalMessage(proposal):
            return proposal.body.round
        case VoteMessage(votes):
            return max(vote.body.round for vote in votes)
        case _:
            return 0


def height_of(message: Message) -> int | None:
    """Of the height in progress that a message speaks of."""
    match message:
        case ProposalMessage(proposal):
            return proposal.body.height
        case VoteMessage(votes) if votes:
            return votes[0].body.height
        case Decision(_, commit):
            return commit.height
        case _:
            return None


def make_votes(votes: Sequence[SignedVote]) -> bytes:
    return encode(VoteMessage(tuple(votes)))
