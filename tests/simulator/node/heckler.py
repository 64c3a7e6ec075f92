"""A peer without a validator key: garbage, forged signatures, lies about decided blocks. It may do so at any time."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from flockchain.codec import encode
from flockchain.node.messages import (
    BlockRequest,
    BlockResponse,
    Decision,
    Message,
    ProposalMessage,
    Status,
    TxBatch,
    VoteMessage,
)
from flockchain.node.ports import Channel, PeerId
from flockchain.types.chain import PRECOMMIT, Block, Commit, CommitSignature, ProposalBody, VoteBody

from .dice import Dice
from .genesis import PAYERS, Pen, key_of
from .machine import Machine

INTERVAL_MS = 500
REMEMBERED = 40


class Accomplice(Protocol):
    """The faulty validators, who lend their keys."""

    pen: Pen

    def faulty_members(self, height: int) -> list[str]: ...
    def members(self, height: int) -> dict[str, int]: ...
    def proposer_of(self, height: int, round: int) -> str: ...
    def craft(self, height: int, proposer: str) -> Block | None: ...


class World(Protocol):
    now_ms: int
    dice: Dice
    machines: Mapping[PeerId, Machine]
    sets: Mapping[int, object]

    def count(self, what: str) -> None: ...
    def send_direct(self, sender: PeerId, target: PeerId, channel: Channel, data: bytes) -> None: ...


class Heckler:
    """Speaks to one machine at a time, and answers whoever believes its claims."""

    def __init__(self, world: World, peer: PeerId, accomplice: Accomplice) -> None:
        self.peer = peer
        self._world = world
        self._accomplice = accomplice
        self._overheard: deque[tuple[Channel, bytes]] = deque(maxlen=REMEMBERED)

    def hear(self, sender: PeerId, channel: Channel, message: Message, data: bytes) -> None:
        self._overheard.append((channel, data))
        if isinstance(message, BlockRequest):
            self._answer(sender, message)

    def act(self) -> None:
        """One annoyance."""
        dice = self._world.dice
        machine = dice.pick(self._machines())
        if machine.node is None:
            return
        acts = (
            self._garbage, self._flip, self._repeat, self._forge_vote, self._forge_proof, self._forge_decision,
            self._forge_decision, self._boast, self._boast, self._send_bad_tx,
        )  # fmt: skip
        dice.pick(acts)(machine)

    def _garbage(self, machine: Machine) -> None:
        dice = self._world.dice
        self._send("sent garbage", machine, dice.pick(tuple(Channel)), dice.data(dice.between(1, 200)))

    def _flip(self, machine: Machine) -> None:
        if self._overheard:
            channel, data = self._world.dice.pick(self._overheard)
            at = self._world.dice.below(len(data))
            flipped = data[:at] + bytes([data[at] ^ 1 << self._world.dice.below(8)]) + data[at + 1 :]
            self._send("flipped a bit", machine, channel, flipped)

    def _repeat(self, machine: Machine) -> None:
        if self._overheard:
            self._send("repeated an old message", machine, *self._world.dice.pick(self._overheard))

    def _forge_vote(self, machine: Machine) -> None:
        """In an honest validator's name."""
        dice = self._world.dice
        height = machine.running.ledger.height + dice.between(0, 2)
        body = VoteBody(dice.between(1, 2), height, dice.below(4), dice.pick((b"", dice.data(32))))
        vote = self._accomplice.pen.sign_vote("stranger", body)
        forged = replace(vote, validator=dice.pick(self._machines()).key.address)
        self._send("forged a vote", machine, Channel.CONSENSUS, encode(VoteMessage((forged,))))

    def _forge_proof(self, machine: Machine) -> None:
        """A re-proposal with votes for something else, or of too few; maybe of a block that has a true proof too."""
        height = machine.running.ledger.height + 1
        block, names = self._craft(height)
        if block is None:
            return
        pen, dice, valid_round = self._accomplice.pen, self._world.dice, -1
        locked = self._find_locked(machine, height)
        if locked is not None and dice.chance(70):
            valid_round, block = locked
        turns = [r for r in range(valid_round + 1, 6) if r and self._accomplice.proposer_of(height, r) in names]
        round = dice.pick(turns or (valid_round + 2,))
        valid_round = valid_round if valid_round >= 0 else round - 1
        block_id, proposer = block.block_id(), self._accomplice.proposer_of(height, round) if turns else names[0]
        proof = [pen.sign_vote(name, VoteBody(1, height, valid_round, block_id)) for name in names]
        if dice.chance(50):
            proof.append(pen.sign_vote(names[0], VoteBody(2, height, 0, block_id)))
        signed = pen.sign_proposal(proposer, ProposalBody(height, round, block_id, valid_round))
        data = encode(ProposalMessage(signed, encode(block), tuple(proof)))
        self._send("forged a proof of lock", machine, Channel.CONSENSUS, data)

    def _find_locked(self, machine: Machine, height: int) -> tuple[int, Block] | None:
        """The last round in which this node saw a polka, and its block."""
        driver = machine.running.driver
        for round in range(driver.core.round, -1, -1):
            polka = driver.core.polka(height, round)
            if polka is not None and polka.value_id in driver.book.blocks:
                return round, driver.book.blocks[polka.value_id][0]
        return None

    def _forge_decision(self, machine: Machine) -> None:
        decision = self._make_decision(machine.running.ledger.height + 1)
        if decision is not None:
            data, commit = decision
            self._send("forged a decision", machine, Channel.CONSENSUS, encode(Decision(data, commit)))

    def _boast(self, machine: Machine) -> None:
        """Claims blocks that it may not have: whoever believes it asks for them."""
        dice = self._world.dice
        height = machine.running.ledger.height + dice.pick((1, 2, 3, 50))
        status = Status(height, 0, False, (), 9)
        self._send("claimed a height", machine, Channel.CONSENSUS, encode(status))

    def _send_bad_tx(self, machine: Machine) -> None:
        dice = self._world.dice
        data = self._accomplice.pen.transfer(dice.pick(PAYERS), dice.below(50), self._world.now_ms)
        tx = dice.pick((dice.data(60), data[:-1] + bytes([data[-1] ^ 1])))
        self._send("sent a bad transaction", machine, Channel.MEMPOOL, encode(TxBatch((tx,))))

    # -- lies about decided blocks ------------------------------------------------------------------------------------

    def _answer(self, asker: PeerId, request: BlockRequest) -> None:
        """Nothing, no blocks, or blocks of which the last may be a lie."""
        dice, machine = self._world.dice, self._world.machines[asker]
        what = dice.pick(("silence", "nothing", "truth", "lie", "lie", "lie"))
        self._world.count(f"answered a block request with {what}")
        if what == "silence" or machine.node is None:
            return
        decisions: list[tuple[bytes, Commit]] = []
        if what != "nothing":
            best = max(self._machines(), key=lambda one: one.store.height)
            for height in range(request.first, min(request.last, best.store.height) + 1):
                block, commit = best.store.block(height), best.store.commit(height)
                decisions.append((encode(block), commit))
            lie = self._make_decision(request.first + len(decisions)) if what == "lie" else None
            if what == "lie" and decisions and (lie is None or dice.chance(70)):
                at = dice.below(len(decisions))
                decisions[at] = (decisions[at][0], self._weaken(decisions[at][1]))
            elif lie is not None:
                decisions.append(lie)
        response = BlockResponse(request.first, tuple(decisions))
        self._world.send_direct(self.peer, asker, Channel.SYNC, encode(response))

    def _make_decision(self, height: int) -> tuple[bytes, Commit] | None:
        """A block that was not decided, with a commit that only the faulty signed, or that is of another block."""
        dice, pen = self._world.dice, self._accomplice.pen
        block, names = self._craft(height)
        if block is None:
            return None
        block_id = block.block_id()
        decided = next((m.store.commit(height) for m in self._machines() if m.store.height >= height), None)
        if decided is not None and dice.chance(50):
            return encode(block), decided
        body = VoteBody(PRECOMMIT, height, 0, block_id)
        signatures = [CommitSignature(key_of(name).address, pen.sign_vote(name, body).signature) for name in names]
        if dice.chance(50):
            honest = {name for name in self._accomplice.members(height) if name not in names}
            signatures += [CommitSignature(key_of(n).address, dice.data(64)) for n in sorted(honest)]
        signatures.sort(key=lambda one: one.validator)
        return encode(block), Commit(height, 0, block_id, tuple(signatures))

    def _weaken(self, commit: Commit) -> Commit:
        """A true commit with too few signatures, or the power of one counted twice."""
        dice = self._world.dice
        kept = dice.shuffled(commit.signatures)[: dice.between(1, max(1, len(commit.signatures) // 2))]
        if dice.chance(30):
            kept = [kept[0]] * len(commit.signatures)
        return replace(commit, signatures=tuple(sorted(kept, key=lambda one: one.validator)))

    def _craft(self, height: int) -> tuple[Block | None, list[str]]:
        names = self._accomplice.faulty_members(height) if height in self._world.sets else []
        return (self._accomplice.craft(height, names[0]) if names else None), names

    def _machines(self) -> Sequence[Machine]:
        return list(self._world.machines.values())

    def _send(self, what: str, machine: Machine, channel: Channel, data: bytes) -> None:
        self._world.count(what)
        self._world.send_direct(self.peer, machine.id, channel, data)
