"""The control: with a third of the power or more than that faulty, a directed attack must fork the chain.

The network is cut in two halves, each of which has more than two thirds of the power together with the faulty
validators, who speak to both. Were no fork found here, the invariants of all other seeds would prove nothing.
"""

from flockchain.errors import Refused
from flockchain.execution.evidence import double_vote
from flockchain.node.messages import ProposalMessage, VoteMessage, decode_message
from flockchain.node.ports import Channel, PeerId
from flockchain.types.chain import SignedVote

from ..invariants import Violation
from .dice import Dice
from .invariants import Fork, Forked
from .machine import Machine
from .outcome import Outcome
from .plots import NIL, Plot, Stage
from .scenario import Scenario
from .world import World

FAULTY = {4: 2, 5: 2, 7: 3}
FOR_EVER_MS = 10**9


class _Split(Plot):
    """Halves by the partition of the scenario."""

    def __init__(self, stage: Stage, height: int) -> None:
        super().__init__(stage, height)
        self.ends_ms = stage.now_ms + FOR_EVER_MS
        mask: int = stage.mask  # type: ignore[attr-defined]
        sides = [mask >> int(machine.name.removeprefix("val")) & 1 for machine in stage.machines]
        self.side_of = {machine.name: side for machine, side in zip(stage.machines, sides, strict=True)}
        self.halves = [[m.id for m, side in zip(stage.machines, sides, strict=True) if side == half] for half in (0, 1)]

    def side_of_proposer(self, round: int) -> int | None:
        """None: the faulty propose."""
        return self.side_of.get(self.stage.proposer_of(self.height, round))

    def offer(self, half: list[PeerId], round: int) -> bytes:
        """A block of our own; its id, or nil when there is none to be made."""
        proposer = self.turn(round)
        block = self.stage.craft(self.height, proposer) if proposer else None
        return NIL if block is None else self.propose(half, round, block)


class TwoFaces(_Split):
    """Signs for each half what that half wants to hear."""

    def on_round(self, round: int) -> None:
        side = self.side_of_proposer(round)
        for number, half in enumerate(self.halves):
            if side is None:
                self.vote_both(half, round, self.offer(half, round))
            elif number != side:
                self.vote_both(half, round, NIL)

    def on_proposal(self, message: ProposalMessage) -> None:
        body = message.proposal.body
        side = self.side_of_proposer(body.round)
        assert side is not None
        self.vote_both(self.halves[side], body.round, body.block_id)


class Forgetful(_Split):
    """Never signs twice in one round: one half decides, and the lock is forgotten in a later round.

    A round has one word for both halves: what is proposed first, or nil once the half whose turn it is has decided
    and will propose no more. Each half hears it when it is in that round, until both have decided.
    """

    def __init__(self, stage: Stage, height: int) -> None:
        super().__init__(stage, height)
        self._words: dict[int, bytes] = {}
        self._entered: set[tuple[int, int]] = set()
        """(side, round)"""
        self._told: set[tuple[int, int]] = set()
        self._decided: set[int] = set()

    def on_enter(self, machine: Machine, round: int) -> None:
        side = self.side_of[machine.name]
        if (side, round) in self._entered:
            return
        self._entered.add((side, round))
        if self.side_of_proposer(round) is None and round not in self._words:
            self._words[round] = self.offer(self.halves[side], round)
        self._speak()

    def on_proposal(self, message: ProposalMessage) -> None:
        self._words.setdefault(message.proposal.body.round, message.proposal.body.block_id)
        self._speak()

    def on_decided(self, machine: Machine) -> None:
        self._decided.add(self.side_of[machine.name])
        self._speak()

    def _speak(self) -> None:
        for side, round in sorted(self._entered - self._told):
            if self.side_of_proposer(round) in self._decided:
                self._words.setdefault(round, NIL)
            if side not in self._decided and round in self._words:
                self._told.add((side, round))
                self.vote_both(self.halves[side], round, self._words[round])


class SplitWorld(World):
    """`run` returns when the chain has forked and raises `Violation` when it does not."""

    safety_heights = FOR_EVER_MS  # one half may be far ahead when the other decides

    def __init__(self, seed: int, n: int, trace: object = None) -> None:
        scenario = draw_split(seed, n)
        plot = Dice("split plot", seed, n).pick((TwoFaces, Forgetful))
        super().__init__(seed, n, trace, scenario, (plot,))  # type: ignore[arg-type]
        self._is_equivocating = plot is TwoFaces
        self._received: dict[tuple[bytes, int, int, int], dict[bytes, SignedVote]] = {}
        self.adversary.mask = scenario.partitions[0][2]  # type: ignore[attr-defined]

    def run(self) -> Outcome:
        try:
            super().run()
        except Forked as forked:
            self._check_evidence(forked.fork)
            self.count("the chain forked")
            self.count("by signing twice" if self._is_equivocating else "by forgetting a lock")
            return self.make_outcome()
        raise Violation("control", "more than a third is faulty, and the chain did not fork")

    def send_direct(self, sender: PeerId, target: PeerId, channel: Channel, data: bytes) -> None:
        super().send_direct(sender, target, channel, data)
        message = decode_message(channel, data) if channel is Channel.CONSENSUS else None
        for vote in message.votes if isinstance(message, VoteMessage) else ():
            place = (vote.validator, vote.body.height, vote.body.round, vote.body.kind)
            self._received.setdefault(place, {})[vote.body.block_id] = vote

    def _heal(self) -> None:
        raise Violation("control", "more than a third is faulty, and the chain did not fork in time")

    def _heckle(self) -> None:
        """Nothing else disturbs."""

    def _check_evidence(self, fork: Fork) -> None:
        """What honest nodes were told convicts at least a third of the power, if they were told two things."""
        node = max((m.running for m in self.machines.values()), key=lambda node: node.ledger.height)
        convicted: set[bytes] = set()
        for place, votes in self._received.items():
            if len(votes) > 1 and place[1] == fork.height:
                one, other = list(votes.values())[:2]
                try:
                    double_vote.judge(node.ledger.state, double_vote.make_evidence(one, other))
                except Refused as refusal:
                    raise Violation("control", f"evidence of a double vote is refused: {refusal.message}") from None
                convicted.add(place[0])
        members = self.sets[fork.height]
        power = sum(member.power for member in members if member.address in convicted)
        if self._is_equivocating and 3 * power < sum(member.power for member in members):
            raise Violation("control", f"the evidence of the fork convicts power {power}, less than a third")


def draw_split(seed: int, n: int) -> Scenario:
    """Powers of which more than a third is faulty, and two halves that are each enough together with them."""
    dice = Dice("split", seed, n)
    while True:
        powers = tuple(dice.between(1, 10) for _ in range(n))
        byzantine = tuple(sorted(dice.shuffled(range(n))[: FAULTY[n]]))
        faulty, mask = sum(powers[index] for index in byzantine), dice.between(1, 2**n - 2)
        sides = [sum(p for i, p in enumerate(powers) if i not in byzantine and mask >> i & 1 == s) for s in (0, 1)]
        if all(side and 3 * (side + faulty) > 2 * sum(powers) for side in sides) and 2 * faulty < sum(powers):
            break
    return Scenario(
        seed=seed, n=n, powers=powers, byzantine=byzantine, skews_ms=(0,) * n, clocks_right_ms=0,
        loss=0, duplication=0, tail=0, delay_ms=20, tail_ms=20,
        crashes=(), partitions=((0, FOR_EVER_MS, mask),), cuts=(), resets=(),
        is_on_files=False, falls_silent=False,
    )  # fmt: skip
