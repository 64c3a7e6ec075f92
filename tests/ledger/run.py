"""One history: blocks of random transactions by rotating proposers, while time passes and validators come and go."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from flockchain.execution.block import BlockOutcome, compute_next_due_ms, get_rotation, get_validators
from flockchain.merkle import compute_root
from flockchain.rotation import compute_proposer
from flockchain.txs import commit_final, create_task, stake
from flockchain.types.chain import SignedVote
from flockchain.types.rows import RecentBlock
from flockchain.types.task import Holdout
from flockchain.types.tx import OK
from tests.ledger.dice import Dice, make_seeded
from tests.ledger.duties import find_duties
from tests.ledger.finals import make_terms
from tests.ledger.rules import DOMAINS, FLK, PHASES, RULES, Attempt, Rule
from tests.ledger.spoil import sign_attempt, sign_plainly
from tests.ledger.world import World
from tests.support.rounds import make_spec

MOST_ROUNDS = 64


@dataclass(frozen=True)
class History:
    """What a seed came to. Equal on every machine and Python."""

    seed: int
    blocks: int
    state_root: bytes
    results_root: bytes
    """RFC 6962 root over the results roots of all blocks."""
    counts: Counter[tuple[str, str]]


class Finding(Exception):
    """A check failed; the message names the history and where in it."""


def replay_command(seed: int, blocks: int, ops: int) -> str:
    return f"python -m tests.ledger --first {seed} --seeds 1 --blocks {blocks} --ops {ops} --trace"


def play(seed: int, blocks: int, ops: int, trace: Callable[[str], None] | None = None) -> History:
    """The history of this seed; raises `Finding`."""
    dice, world, roots = make_seeded(seed), start(), []
    try:
        for _ in range(blocks):
            for _ in range(dice.below(2 * ops + 1) if dice.is_one_in(4) else ops):
                line = operate(world, dice, pick_kind(world, dice))
                if trace:
                    trace(line)
            outcome = close_block(world, dice)
            roots.append(outcome.results_root)
            if trace:
                trace(f"block {world.ledger.chain.height}: state root {outcome.state_root.hex()}")
    except AssertionError as error:
        height = world.ledger.chain.height + 1
        raise Finding(f"seed {seed}, block {height}: {error}\nreplay: {replay_command(seed, blocks, ops)}") from error
    return History(seed, blocks, world.state.root, compute_root(roots), world.counts)


def start() -> World:
    """A chain with one block, which opens task 1, with a final set: there is something to be wrong about at once."""
    world = World()
    task = create_task.Body(make_spec(phases=PHASES, rounds=2), 1_000_000_000)
    for kind, body in (("commit-final", commit_final.Body(make_terms(1_001))), ("create-task", task)):
        result = world.offer(sign_plainly(world, kind, Attempt("actor0", body)), kind)
        assert result is not None
        assert result.code == OK
    world.end_block("val0")
    world.begin_block(1_000)
    return world


def enroll(world: World) -> None:
    """Four trainers and three judges for task 1."""
    holdouts = tuple(Holdout(name, bytes(32), 40) for name in DOMAINS)
    for i in range(1, 8):
        body = stake.Body("task:1", 25 * FLK, role="trainer" if i < 5 else "voter", holdouts=holdouts if i > 4 else ())
        result = world.offer(sign_plainly(world, "stake", Attempt(f"actor{i}", body)), "stake")
        assert result is not None
        assert result.code == OK


def pick_kind(world: World, dice: Dice) -> str:
    """A kind by the weights of the rules."""
    weights = {kind: _weigh(world, rule) for kind, rule in sorted(RULES.items())}
    number = dice.below(sum(weights.values()))
    for kind, weight in weights.items():
        number -= weight
        if number < 0:
            return kind
    raise AssertionError("weights add up")


def _weigh(world: World, rule: Rule) -> int:
    is_owed = not rule.phases or any(find_duties(world, phase) for phase in rule.phases)
    if rule.is_owed is not None:
        is_owed = rule.is_owed(world)
    return rule.weight if is_owed else 1


def operate(world: World, dice: Dice, kind: str) -> str:
    """Try one transaction of this kind; what came of it, in a line."""
    attempt = RULES[kind].make(world, dice)
    result = world.offer(sign_attempt(world, dice, kind, attempt), kind)
    return f"{attempt.sender}: {attempt.body} -> {result.code if result else 'no block may hold it'}"


def close_block(world: World, dice: Dice) -> BlockOutcome:
    """The proposer of round 0, or of a later round; some members do not sign, some sign late."""
    height = world.ledger.chain.height + 1
    proposer = _choose_proposer(world, height, dice.below(3) if dice.is_one_in(6) else 0)
    if dice.is_one_in(10):
        world.away = frozenset(dice.pick(world.members()) for _ in range(dice.below(3)))
    late = _choose_late(world, dice)
    outcome = world.end_block(world.validator_names[proposer], _choose_absent(world, dice, height), late)
    world.begin_block(choose_elapsed_ms(world, dice))
    return outcome


def _choose_proposer(world: World, height: int, first_round: int) -> bytes:
    """A flipped byte may have registered a beacon head without links: who has one cannot propose, others do later."""
    rotation = get_rotation(world.state, height)
    proposers = (compute_proposer(rotation, round) for round in range(first_round, first_round + MOST_ROUNDS))
    return next(proposer for proposer in proposers if world.ledger.find_preimage(proposer, height) is not None)


def choose_elapsed_ms(world: World, dice: Dice) -> int:
    """Often a second; sometimes exactly until something is due, or 1 ms short of it; rarely past every deadline."""
    now_ms, due_ms = world.ledger.chain.time_ms, compute_next_due_ms(world.state)
    until_due_ms = max(due_ms - now_ms, 1) if due_ms is not None else 1
    if not dice.below(6):
        return min(until_due_ms - dice.below(2), 120_000) or 1
    return dice.pick([1_000, 1_000, 1_000, 3_000, 50, 1, 1_000, 1_000, 20_000])


def _choose_absent(world: World, dice: Dice, height: int) -> list[str]:
    """Those away, and at times one more, as long as more than 2/3 of the power signs."""
    members = get_validators(world.state, height)
    total = sum(member.power for member in members)
    missing, absent = 0, []
    one_more = world.validator_names[dice.pick(members).address] if dice.is_one_in(3) else ""
    for member in members:
        name = world.validator_names[member.address]
        if (name in world.away or name == one_more) and 3 * (missing + member.power) < total:
            missing += member.power
            absent.append(name)
    return absent


def _choose_late(world: World, dice: Dice) -> list[SignedVote]:
    """Precommits that come late, for blocks that still count; never of those away."""
    chain = world.ledger.chain
    votes = []
    for row in world.state.iterate(RecentBlock):
        for signer in row.absent:
            name = world.validator_names[signer.validator]
            is_open = row.height + chain.params.consensus.late_precommit_blocks > chain.height
            if name not in world.away and is_open and dice.below(2):
                votes.append(world.ledger.late_precommit(name, row.height))
    return votes
