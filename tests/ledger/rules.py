"""What an actor may try: one rule for each transaction type, in `RULES`. A new type is one more function and line.

A rule looks at the state and gives a sender and a body; most are meant to succeed, some are beside the point.
`spoil.py` makes further ones wrong in ways that concern every type.
"""

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from flockchain.codec import Canonical
from flockchain.crypto import sha256
from flockchain.execution.staking import make_task_target
from flockchain.genesis import sign_possession
from flockchain.txs import (
    claim_rewards,
    create_task,
    edit_validator,
    fund_task,
    leave_task,
    stake,
    transfer,
    unjail,
    unstake,
)
from flockchain.types.rows import Stake, Task, ValidatorRow
from flockchain.types.task import Holdout, JudgeSpec, PhaseSpec, RewardSpec, TaskSpec
from tests.ledger import changes, delegating, duties, finals
from tests.ledger.choices import pick_duty, pick_task, pick_validator
from tests.ledger.dice import Dice
from tests.ledger.reports import report_seals, report_submissions, report_validator
from tests.ledger.world import ACTORS, World
from tests.support.ledger import make_address, make_beacon_chain, make_key
from tests.support.rounds import make_spec

FLK = 1_000_000
PHASES = PhaseSpec(
    enroll_ms=20_000,
    train_ms=20_000,
    publish_ms=20_000,
    commit_ms=20_000,
    reveal_ms=20_000,
    aggregate_ms=20_000,
    enroll_limit_ms=60_000,
)
DOMAINS = ("code", "law", "medicine")


class Attempt(NamedTuple):
    sender: str
    body: Canonical


class Rule(NamedTuple):
    weight: int
    """How often the seeded histories pick it, beside the others."""
    make: Callable[[World, Dice], Attempt]
    phases: tuple[str, ...] = ()
    """Due in these phases of a training round: while nobody owes it, it is picked with weight 1."""
    is_owed: Callable[[World], bool] | None = None
    """The same for what is due outside of training rounds."""


# Money


def make_transfer(world: World, dice: Dice) -> Attempt:
    sender = dice.pick(world.actors)
    balance = world.account(sender).balance_uflk
    if dice.is_one_in(3):  # a new account; little, so that the actors do not run out of money
        return Attempt(sender, transfer.Body(make_address(f"stranger{dice.below(20)}"), 1 + dice.below(FLK), ""))
    amount = dice.pick([1, FLK, 1_000 * FLK, balance // 2, balance, 0, 2**60])
    return Attempt(sender, transfer.Body(make_address(dice.pick(world.actors)), amount, ""))


def make_claim_rewards(world: World, dice: Dice) -> Attempt:
    earned = delegating.claim_earned(world, dice) if dice.below(2) else None
    if earned is not None:
        return Attempt(*earned)
    validator = pick_validator(world, dice)
    return Attempt(world.names[validator.owner], claim_rewards.Body(validator.address))


# Stake


def make_stake(world: World, dice: Dice) -> Attempt:
    make = dice.pick([_join_task, _join_task, _join_task, _top_up, _join_validators, _delegate, _delegate])
    return make(world, dice)


def _delegate(world: World, dice: Dice) -> Attempt:
    return Attempt(*dice.pick([delegating.delegate, delegating.delegate, delegating.offer_share])(world, dice))


def _join_validators(world: World, dice: Dice) -> Attempt:
    """A first bond with an unused key, or now and then one that serves, or served, somebody."""
    sender, rows = dice.pick(world.actors), list(world.state.iterate(ValidatorRow))
    is_crowded = sum(1 for row in rows if row.bond_uflk) >= 9
    name = f"val{dice.below(len(rows)) if is_crowded or dice.is_one_in(3) else len(rows)}"
    signer = name if not dice.is_one_in(10) else "stranger"
    possession = sign_possession(make_key(signer), world.ledger.chain.chain_id, make_address(sender))
    key, head = bytes(make_key(name).verify_key), make_beacon_chain(name).head
    amount = dice.pick([10_000, 5_000, 1_000, 15_000, 999]) * FLK
    return Attempt(
        sender, stake.Body("validator", amount, public_key=key, possession=possession, beacon_head=head, name=name)
    )


def _join_task(world: World, dice: Dice) -> Attempt:
    """A newcomer's bond in an open task; three judges for each two trainers."""
    sender, number = dice.pick(ACTORS), pick_task(world, dice)
    target, amount = make_task_target(number), dice.pick([10, 25, 100, 9, 1]) * FLK
    if dice.below(5) < 2:
        return Attempt(sender, stake.Body(target, amount, role="trainer"))
    task = world.state.find(Task, number)
    domains = task.spec.domains if task is not None else DOMAINS
    if dice.is_one_in(6):
        domains = (dice.pick([*domains, "history"]),)
    holdouts = tuple(Holdout(name, sha256(f"{sender} {name}".encode()), dice.pick([40, 40, 40, 3])) for name in domains)
    return Attempt(sender, stake.Body(target, amount, role="voter", holdouts=holdouts))


def _top_up(world: World, dice: Dice) -> Attempt:
    bonds = [row for row in world.state.iterate(Stake) if row.owner in world.names]
    bond = dice.pick(bonds)
    amount = dice.pick([50 * FLK, 1, 5_000 * FLK, 0])
    if not bond.target.startswith("validator:"):
        return Attempt(world.names[bond.owner], stake.Body(bond.target, amount))
    validator = world.state.get(ValidatorRow, bytes.fromhex(bond.target.partition(":")[2]))
    return Attempt(world.names[bond.owner], stake.Body("validator", amount, public_key=validator.public_key))


def make_unstake(world: World, dice: Dice) -> Attempt:
    """Of a task's bond, of a delegation, or one time in eight of a validator's bond: all, a part, or too much."""
    undelegated = delegating.undelegate(world, dice) if dice.is_one_in(3) else None
    if undelegated is not None:
        return Attempt(*undelegated)
    bonds = [row for row in world.state.iterate(Stake) if row.owner in world.names]
    leaving = [row for row in bonds if row.leaving]
    if leaving and dice.below(2):  # makes room for others in its task
        bond = dice.pick(leaving)
        return Attempt(world.names[bond.owner], unstake.Body(bond.target, bond.amount_uflk))
    wanted = "validator:" if dice.is_one_in(8) else "task:"
    bond = dice.pick([row for row in bonds if row.target.startswith(wanted)] or bonds)
    amount = dice.pick([bond.amount_uflk, bond.amount_uflk // 2, 1, bond.amount_uflk - 1, bond.amount_uflk + 1])
    return Attempt(world.names[bond.owner], unstake.Body(bond.target, max(amount, 0)))


def make_unjail(world: World, dice: Dice) -> Attempt:
    jailed = [row for row in world.state.iterate(ValidatorRow) if row.jailed_until_ms and not row.tombstoned]
    validator = dice.pick(jailed) if jailed and not dice.is_one_in(8) else pick_validator(world, dice)
    return Attempt(world.names[validator.owner], unjail.Body(validator.address))


def make_edit_validator(world: World, dice: Dice) -> Attempt:
    validator = pick_validator(world, dice)
    if dice.is_one_in(4):
        return Attempt(*delegating.change_share(world, dice, validator))
    owner, name = world.names[validator.owner], world.validator_names[validator.address]
    if dice.is_one_in(4):
        head = world.offer_beacon(name) if not dice.is_one_in(8) else b"short"
        return Attempt(owner, edit_validator.Body(validator.address, "", head))
    return Attempt(owner, edit_validator.Body(validator.address, dice.pick(["one", "two", ""]), b""))


# Offences and tasks


def make_slash(world: World, dice: Dice) -> Attempt:
    """Rarely of a validator, for it is its end; forged, old and repeated evidence comes from the same choices."""
    make = dice.pick([report_submissions, report_seals, report_submissions, report_seals, report_validator])
    return Attempt(dice.pick(world.actors), make(world, dice))


def make_create_task(world: World, dice: Dice) -> Attempt:
    pool = dice.pick([900 * FLK, 0, 1_000_003, 2**60])
    return Attempt(dice.pick(ACTORS), create_task.Body(_make_spec(dice), pool))


def _make_spec(dice: Dice) -> TaskSpec:
    """A small task; one in eight is refused: too much of something, or in contradiction with itself."""
    trainers = 1 + dice.below(3)
    spec = make_spec(
        phases=PHASES,
        domains=DOMAINS[: 1 + dice.below(3)],
        rounds=1 + dice.below(3),
        trainers_min=1,
        trainers_max=trainers,
        judge=JudgeSpec(seats=dice.pick([3, 3, 6]), judge_tokens=1_000, slowest_tokens_per_s=1_000),
        rewards=RewardSpec(rule=dice.pick(["flalliance", "merit", "arena"])),
    )
    if not dice.is_one_in(8):
        return spec
    return dice.pick(
        [
            replace(spec, trainers_min=trainers + 1),
            replace(spec, phases=replace(spec.phases, train_ms=1)),
            replace(spec, penalties=replace(spec.penalties, rejected_ppm=900_000)),
            replace(spec, domains=("law", "code")),
        ]
    )


def make_fund_task(world: World, dice: Dice) -> Attempt:
    amount = dice.pick([FLK, 7, 0, 2**60])
    return Attempt(dice.pick(world.actors), fund_task.Body(pick_task(world, dice), amount))


def make_leave_task(world: World, dice: Dice) -> Attempt:
    bonds = [row for row in world.state.iterate(Stake) if row.target.startswith("task:") and row.owner in world.names]
    if not bonds or dice.is_one_in(6):
        return Attempt(dice.pick(world.actors), leave_task.Body(1 + dice.below(9)))
    bond = dice.pick(bonds)
    return Attempt(world.names[bond.owner], leave_task.Body(int(bond.target.partition(":")[2])))


# Duties of a training round


def make_submit_adapter(world: World, dice: Dice) -> Attempt:
    training, member = pick_duty(world, dice, "train")
    return Attempt(world.names[member], duties.make_submission(world, dice, training, member))


def make_confirm_fetched(world: World, dice: Dice) -> Attempt:
    training, member = pick_duty(world, dice, "publish")
    return Attempt(world.names[member], duties.make_confirmation(world, training, member))


def make_vote(world: World, dice: Dice) -> Attempt:
    if dice.below(2) and duties.find_duties(world, "reveal"):
        training, member = pick_duty(world, dice, "reveal")
        return Attempt(world.names[member], duties.make_open_vote(world, dice, training, member))
    training, member = pick_duty(world, dice, "commit")
    return Attempt(world.names[member], duties.make_sealed_vote(world, training, member))


def make_attest_aggregate(world: World, dice: Dice) -> Attempt:
    late = duties.find_late_attesters(world)
    if late and not (dice.below(2) and duties.find_duties(world, "aggregate")):
        training, member = dice.pick(late)
    else:
        training, member = pick_duty(world, dice, "aggregate")
    return Attempt(world.names[member], duties.make_attestation(world, training, member))


# The chain's own rules


def make_propose_change(world: World, dice: Dice) -> Attempt:
    return Attempt(*changes.make_propose_change(world, dice))


def make_approve_change(world: World, dice: Dice) -> Attempt:
    return Attempt(*changes.make_approve_change(world, dice))


# The hidden final set


def make_commit_final(world: World, dice: Dice) -> Attempt:
    return Attempt(*finals.make_commit_final(world, dice))


def make_reveal_final(world: World, dice: Dice) -> Attempt:
    return Attempt(*finals.make_reveal_final(world, dice))


def make_judge_final(world: World, dice: Dice) -> Attempt:
    return Attempt(*finals.make_judge_final(world, dice))


RULES: dict[str, Rule] = {
    "approve-change": Rule(6, make_approve_change),
    "attest-aggregate": Rule(16, make_attest_aggregate, ("aggregate",)),
    "claim-rewards": Rule(3, make_claim_rewards),
    "commit-final": Rule(2, make_commit_final),
    "confirm-fetched": Rule(16, make_confirm_fetched, ("publish",)),
    "create-task": Rule(3, make_create_task),
    "edit-validator": Rule(3, make_edit_validator),
    "fund-task": Rule(3, make_fund_task),
    "judge-final": Rule(16, make_judge_final, is_owed=finals.is_judgement_owed),
    "leave-task": Rule(1, make_leave_task),
    "propose-change": Rule(2, make_propose_change),
    "reveal-final": Rule(8, make_reveal_final, is_owed=finals.is_reveal_owed),
    "slash": Rule(2, make_slash),
    "stake": Rule(14, make_stake),
    "submit-adapter": Rule(16, make_submit_adapter, ("train",)),
    "transfer": Rule(8, make_transfer),
    "unjail": Rule(3, make_unjail),
    "unstake": Rule(4, make_unstake),
    "vote": Rule(24, make_vote, ("commit", "reveal")),
}
