"""`stake`: bond money, as a validator or as a participant of a task; or add to a bond.

Target ``validator``: `public_key` is the consensus key; the first bond also brings its proof of possession (the key
signs the owner's address), the head of its beacon chain and a name. Target ``task:<id>``: `role` is trainer or voter;
a voter's first bond commits to its private holdouts.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.crypto import HASH_BYTES, PUBLIC_KEY_BYTES, address_of, format_address
from flockchain.errors import Refused
from flockchain.execution.balances import check_balance
from flockchain.execution.context import Context
from flockchain.execution.staking import (
    count_participants,
    get_stake,
    increase_bond,
    make_task_target,
    make_validator_target,
    parse_target,
)
from flockchain.genesis import check_possession
from flockchain.types.ids import OptionalHash, Text, Uflk
from flockchain.types.rows import Stake, Task, ValidatorRow
from flockchain.types.task import Holdout
from flockchain.types.tx import Tx

KIND = "stake"
VALIDATOR = "validator"


class Body(Canonical, frozen=True):
    target: Annotated[str, Meta(max_length=64)]
    """``validator`` or ``task:<id>``."""
    amount_uflk: Uflk
    role: Literal["", "trainer", "voter"] = ""
    holdouts: tuple[Holdout, ...] = ()
    """Sorted by domain."""
    public_key: Annotated[bytes, Meta(max_length=32)] = b""
    possession: Annotated[bytes, Meta(max_length=64)] = b""
    beacon_head: OptionalHash = b""
    name: Text = ""


def check(body: Body, tx: Tx) -> None:
    if body.amount_uflk == 0:
        raise Refused("zero-amount", "a stake bonds at least 1 uflk")
    if body.target == VALIDATOR:
        if body.role or body.holdouts:
            raise Refused("bad-stake", "a validator bond has no role and no holdouts")
        if len(body.public_key) != PUBLIC_KEY_BYTES:
            raise Refused("bad-stake", f"a consensus key has {PUBLIC_KEY_BYTES} bytes, got {len(body.public_key)}")
        return
    if parse_target(body.target)[0] != "task":
        raise Refused("bad-target", f"stake target is 'validator' or 'task:<id>', got {body.target!r}")
    if body.public_key or body.possession or body.beacon_head or body.name:
        raise Refused("bad-stake", "a task bond has no consensus key, proof, beacon head or name")
    domains = [holdout.domain for holdout in body.holdouts]
    if domains != sorted(set(domains)):
        raise Refused("bad-stake", "holdouts are sorted by domain, none twice")
    if body.holdouts and body.role != "voter":
        raise Refused("bad-stake", "only a voter commits to holdouts")
    if any(holdout.blocks == 0 for holdout in body.holdouts):
        raise Refused("bad-stake", "a holdout has at least 1 block")


def apply(context: Context, tx: Tx, body: Body) -> None:
    check_balance(context.state, tx.sender, body.amount_uflk, "stake")
    if body.target == VALIDATOR:
        _bond_validator(context, tx.sender, body)
    else:
        _bond_task(context, tx.sender, body)


def _bond_validator(context: Context, owner: bytes, body: Body) -> None:
    state, address = context.state, address_of(body.public_key)
    validator = state.find(ValidatorRow, address)
    if validator is not None:
        _check_own_living(validator, owner)
    elif len(body.beacon_head) != HASH_BYTES:
        raise Refused("bad-stake", f"a first bond brings a beacon head of {HASH_BYTES} bytes")
    else:
        check_possession(context.chain.chain_id, body.public_key, owner, body.possession)
    bonded = validator.bond_uflk if validator else 0
    _check_minimum(bonded + body.amount_uflk, context.params.stake.min_validator_bond_uflk)
    if validator is None:
        state.put(
            ValidatorRow(
                address=address,
                owner=owner,
                public_key=body.public_key,
                name=body.name,
                bond_uflk=0,
                active=False,
                jailed_until_ms=0,
                tombstoned=False,
                beacon_head=body.beacon_head,
                next_beacon_head=b"",
                next_beacon_height=0,
                joined_height=context.height,
                income_uflk=0,
            )
        )
    increase_bond(context, owner, make_validator_target(address), body.amount_uflk)


def _check_own_living(validator: ValidatorRow, owner: bytes) -> None:
    name = format_address(validator.address)
    if validator.owner != owner:
        raise Refused("key-in-use", f"the consensus key of {name} serves {format_address(validator.owner)}")
    if validator.tombstoned:
        raise Refused("tombstoned", f"validator {name} signed twice and is out for good: a new key is needed")
    if validator.bond_uflk == 0:
        raise Refused("key-used", f"validator {name} has left, and a key serves once: a new key is needed")


def _bond_task(context: Context, owner: bytes, body: Body) -> None:
    _, number = parse_target(body.target)
    assert isinstance(number, int)
    task = context.state.find(Task, number)
    if task is None:
        raise Refused("not-found", f"there is no task {number}")
    if task.status != "open":
        raise Refused("task-closed", f"task {number} is {task.status}")
    stake = get_stake(context.state, owner, make_task_target(number))
    if stake is None or stake.amount_uflk == 0:
        _check_newcomer(context, task, body)
    else:
        _check_same_part(stake, body)
    bonded = stake.amount_uflk if stake else 0
    _check_minimum(bonded + body.amount_uflk, task.spec.min_bond_uflk)
    if stake is not None and stake.amount_uflk == 0:
        joined = msgspec.structs.replace(stake, role=body.role, holdouts=body.holdouts, leaving=False)
        context.state.put(joined)
    increase_bond(context, owner, body.target, body.amount_uflk, role=body.role, holdouts=body.holdouts)


def _check_newcomer(context: Context, task: Task, body: Body) -> None:
    if not body.role:
        raise Refused("bad-stake", "the first bond in a task offers a role: trainer or voter")
    if body.role == "voter" and not body.holdouts:
        raise Refused("bad-stake", "a voter commits to its holdout of at least one domain")
    for holdout in body.holdouts:
        if holdout.domain not in task.spec.domains:
            names = ", ".join(task.spec.domains)
            raise Refused("unknown-domain", f"task {task.id} has no domain {holdout.domain!r}; it has: {names}")
    limit = context.params.tasks.max_participants
    if count_participants(context.state, task.id) >= limit:
        raise Refused("task-full", f"task {task.id} has {limit} participants, the most that are allowed")


def _check_same_part(stake: Stake, body: Body) -> None:
    """A bond keeps its role and holdouts: chosen later, they could be chosen to fit the draw."""
    if stake.leaving:
        raise Refused("left-task", f"the owner has left {stake.target}: take the bond out before joining again")
    if body.role not in ("", stake.role):
        raise Refused("one-role", f"the bond in {stake.target} is a {stake.role}'s: one role per participant of a task")
    if body.holdouts not in ((), stake.holdouts):
        raise Refused("holdout-fixed", f"the holdouts committed to in {stake.target} cannot change while bonded")


def _check_minimum(total_uflk: int, minimum_uflk: int) -> None:
    if total_uflk < minimum_uflk:
        raise Refused("below-minimum", f"stake of {total_uflk} uflk is below the minimum bond of {minimum_uflk} uflk")
