"""The faulty validators: their keys, their blocks, and one plot for every height."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

from msgspec.structs import replace

from flockchain.codec import encode
from flockchain.crypto import sha256
from flockchain.execution.beacon import get_beacon_head
from flockchain.execution.block import build_block
from flockchain.execution.validity import compute_last_commit_hash
from flockchain.merkle import compute_root
from flockchain.node.messages import Message, ProposalMessage, VoteMessage
from flockchain.node.ports import Channel, PeerId
from flockchain.rotation import Rotation, compute_proposer
from flockchain.types.chain import Block, ProposalBody, VoteBody
from flockchain.types.rows import SetMember, ValidatorRow

from .dice import Dice
from .genesis import Pen, beacon_of, key_of
from .isolation import Amnesia, Blackout, IsolateDeciders, Strand
from .machine import Machine
from .network import HOLD, LOSE
from .plots import Noise, Obey, Plot, Spoil, Straddle, Withhold, height_of

BROKEN_HASHES = (
    "last_block_id",
    "last_commit_hash",
    "txs_root",
    "prev_results_root",
    "prev_state_root",
    "validators_hash",
    "next_validators_hash",
    "params_hash",
    "beacon_preimage",
)
BROKEN_TIMES_MS = (-(2**40), -600_000, 10_000, 3_600_000)
WATCH_MS = 50
PLOTS: tuple[type[Plot], ...] = (
    Plot, Obey, Withhold, Noise, Noise, Spoil, IsolateDeciders, IsolateDeciders, Amnesia, Blackout, Blackout, Strand,
    Straddle,
)  # fmt: skip
"""What one is picked from for every height."""

Held = tuple[Machine, PeerId, Channel, bytes]


class World(Protocol):
    """What the adversary knows: everything but the others' keys."""

    now_ms: int
    is_healed: bool
    dice: Dice
    machines: Mapping[PeerId, Machine]
    sets: Mapping[int, tuple[SetMember, ...]]

    def count(self, what: str) -> None: ...
    def note(self, *what: object) -> None: ...
    def send_direct(self, sender: PeerId, target: PeerId, channel: Channel, data: bytes) -> None: ...
    def call_in(self, delay_ms: int, action: object) -> None: ...
    def release(self, held: Sequence[Held]) -> None: ...


class Adversary:
    """Stage of the plots. `peers`: the network identity of each faulty validator, by name."""

    def __init__(
        self,
        world: World,
        peers: Mapping[str, PeerId],
        pen: Pen,
        plots: Sequence[type[Plot]] = PLOTS,
        falls_silent: bool = False,
    ) -> None:
        self.pen = pen
        self._world = world
        self._peers = peers
        self._names = {key_of(f"val{i}").address: f"val{i}" for i in range(16)}
        self._kinds = plots
        self._falls_silent = falls_silent
        self._plots: dict[int, Plot] = {}
        self._entered: dict[tuple[int, int], set[PeerId]] = {}
        """Who was in which round of which height."""
        self._held: dict[int, list[Held]] = {}
        self._turns: dict[tuple[int, int], str] = {}
        self._crafted = 0
        self._told: dict[tuple[str, PeerId, int, int, int], set[bytes]] = {}

    # -- what the world tells -----------------------------------------------------------------------------------------

    def on_progress(self, machine: Machine, height: int, round: int) -> None:
        """An honest node may have entered a round."""
        if (height, round) not in self._entered:
            self._entered[height, round] = set()
            self._plot(height).on_round(round)
        if machine.id not in self._entered[height, round]:
            self._entered[height, round].add(machine.id)
            self._plot(height).on_enter(machine, round)

    def on_decided(self, machine: Machine, height: int) -> None:
        """An honest node is about to persist a block."""
        if height in self._plots:
            self._plots[height].on_decided(machine)

    def hear(self, message: ProposalMessage) -> None:
        """An honest node proposes."""
        height = message.proposal.body.height
        if height in self._world.sets:
            self._plot(height).on_proposal(message)

    def route(self, sender: Machine, target: PeerId, message: Message, channel: Channel, data: bytes) -> int | None:
        """What becomes of an honest message; `HOLD` means that it is kept here, `LOSE` that it never arrives."""
        height = height_of(message)
        if height is None or height not in self._world.sets:
            return None
        plot = self._plot(height)
        if plot.is_over or not plot.schedules:
            return None
        answer = plot.route(sender, target, message)
        if answer == HOLD:
            self.count("a message was held back")
            self._held.setdefault(height, []).append((sender, target, channel, data))
        elif answer == LOSE:
            self.count("a plot lost a message")
        return answer

    def heal(self) -> None:
        for height in list(self._held):
            self._release(height)

    def _plot(self, height: int) -> Plot:
        plot = self._plots.get(height)
        if plot is None or (self.is_healed and not isinstance(plot, Noise) and type(plot) is not Plot):
            kind = self.dice.pick(self._kinds)
            if self.is_healed:
                kind = Plot if self._falls_silent else Noise
            plot = self._plots[height] = kind(self, height)
            self._world.note("plot", height, kind.__name__)
            self.count(f"plot: {kind.__name__}")
            if plot.schedules:
                self._watch(plot)
        return plot

    def _watch(self, plot: Plot) -> None:
        if plot.is_over:
            self._release(plot.height)
        else:
            self._world.call_in(WATCH_MS, lambda: self._watch(plot))

    def _release(self, height: int) -> None:
        self._world.release(self._held.pop(height, []))

    # -- the stage ----------------------------------------------------------------------------------------------------

    @property
    def dice(self) -> Dice:
        return self._world.dice

    @property
    def now_ms(self) -> int:
        return self._world.now_ms

    @property
    def is_healed(self) -> bool:
        return self._world.is_healed

    @cached_property
    def machines(self) -> Sequence[Machine]:
        return tuple(self._world.machines.values())

    def count(self, what: str) -> None:
        self._world.count(what)

    def members(self, height: int) -> dict[str, int]:
        """Powers of a height by name."""
        return {self._names[member.address]: member.power for member in self._world.sets[height]}

    def faulty_members(self, height: int) -> list[str]:
        return [name for name in self._peers if name in self.members(height)]

    def proposer_of(self, height: int, round: int) -> str:
        if (height, round) not in self._turns:
            members = self._world.sets[height]
            rotation = Rotation(
                tuple(m.address for m in members), tuple(m.power for m in members), tuple(m.priority for m in members)
            )
            self._turns[height, round] = self._names[compute_proposer(rotation, round)]
        return self._turns[height, round]

    def craft(self, height: int, proposer: str) -> Block | None:
        """A valid block, another one each time; None when no honest node stands where we could learn it from."""
        nodes = [machine.node for machine in self.machines if machine.node is not None]
        node = next((node for node in nodes if node.ledger.height == height - 1), None)
        if node is None:
            return None
        self._crafted += 1
        ledger, late = node.ledger, node.driver.late
        head = get_beacon_head(ledger.state.get(ValidatorRow, key_of(proposer).address), height)
        preimage = beacon_of(proposer).find_preimage(head)
        assert preimage is not None
        return build_block(
            ledger.state,
            proposer=key_of(proposer).address,
            time_ms=max(self.now_ms + self._crafted % 50, ledger.chain.time_ms + 1 + self._crafted % 50),
            txs=tuple(node.mempool.reap(100_000, self.dice.below(4), ledger.next_nonce)),
            last_commit=late.fill_commit(ledger.last_commit),
            late_precommits=late.for_next_block(),
            beacon_preimage=preimage,
        )

    def spoil(self, block: Block) -> Block:
        """The same with something that makes it unfit to come next."""
        header, dice = block.header, self.dice
        what = dice.pick((*BROKEN_HASHES, "time_ms", "time_ms", "last_commit", "proposer", "txs", "height"))
        self.count(f"spoiled a block: {what}")
        if what in BROKEN_HASHES:
            return replace(block, header=replace(header, **{what: sha256(what.encode(), header.block_id())}))
        if what == "last_commit":
            commit = replace(block.last_commit, signatures=block.last_commit.signatures[:1])
            digest = compute_last_commit_hash(commit, block.late_precommits)
            return replace(block, header=replace(header, last_commit_hash=digest), last_commit=commit)
        if what == "txs":
            txs = (*block.txs, dice.data(40))
            return replace(block, header=replace(header, txs_root=compute_root(txs)), txs=txs)
        changes = {
            "time_ms": max(1, header.time_ms + dice.pick(BROKEN_TIMES_MS)),
            "proposer": dice.pick(self.machines).key.address,
            "height": header.height + 1,
        }
        return replace(block, header=replace(header, **{what: changes[what]}))

    def propose(self, targets: Sequence[PeerId], body: ProposalBody, block: Block, proposer: str) -> None:
        data = encode(ProposalMessage(self.pen.sign_proposal(proposer, body), encode(block), ()))
        self.count("a faulty validator proposed")
        for target in targets:
            self._tell(proposer, target, (body.height, body.round, 0), body.block_id, data)

    def vote(self, targets: Sequence[PeerId], body: VoteBody, names: Sequence[str]) -> None:
        for name in names:
            data = encode(VoteMessage((self.pen.sign_vote(name, body),)))
            for target in targets:
                self._tell(name, target, (body.height, body.round, body.kind), body.block_id, data)

    def _tell(self, name: str, target: PeerId, step: tuple[int, int, int], block_id: bytes, data: bytes) -> None:
        told = self._told.setdefault((name, target, *step), set())
        told.add(block_id)
        if len(told) == 2:
            self.count(f"equivocating {('proposals', 'prevotes', 'precommits')[step[2]]}")
        self._world.send_direct(self._peers[name], target, Channel.CONSENSUS, data)
