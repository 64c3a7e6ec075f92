"""`stake`: bond money, as a validator or as a participant of a task; add to a bond; or delegate to another's bond.

Target ``validator``: `public_key` is the consensus key; the first bond also brings its proof of possession (the key
signs the owner's address), the head of its beacon chain and a name. Target ``task:<id>``: `role` is trainer or voter;
a voter's first bond commits to its private holdouts. With `share_ppm` the sender offers others that part of what their
delegations earn. With `delegate` the sender delegates to the bond of that account, which has made such an offer.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.crypto import ADDRESS_BYTES, HASH_BYTES, PUBLIC_KEY_BYTES, address_of, format_address
from flockchain.errors import Refused
from flockchain.execution.balances import check_balance
from flockchain.execution.context import Context
from flockchain.execution.delegation import (
    MAX_SHARES,
    check_share,
    compute_new_shares,
    get_delegation,
    get_pool,
    increase_delegation,
    set_share,
)
from flockchain.execution.epochs import get_task_params
from flockchain.execution.staking import (
    count_participants,
    get_stake,
    increase_bond,
    make_task_target,
    make_validator_target,
    parse_target,
)
from flockchain.genesis import check_possession
from flockchain.types.delegation import compute_worth_uflk
from flockchain.types.ids import OptionalAddress, OptionalHash, Ppm, Text, Uflk
from flockchain.types.rows import Stake, Task, ValidatorRow
from flockchain.types.task import Holdout
from flockchain.types.tx import Tx

KIND = "stake"
VALIDATOR = "validator"


class Body(Canonical, frozen=True):
    target: Annotated[str, Meta(max_length=64)]
    """``validator`` or ``task:<id>``; to delegate, ``validator:<address in hex>`` or ``task:<id>``."""
    amount_uflk: Uflk
    """0 only to change `share_ppm`."""
    role: Literal["", "trainer", "voter"] = ""
    holdouts: tuple[Holdout, ...] = ()
    """Sorted by domain."""
    public_key: Annotated[bytes, Meta(max_length=32)] = b""
    possession: Annotated[bytes, Meta(max_length=64)] = b""
    beacon_head: OptionalHash = b""
    name: Text = ""
    delegate: OptionalAddress = b""
    """Owner of the validator, or participant of the task, to whom is delegated; empty: the sender's own bond."""
    share_ppm: Ppm | None = None
    """Part of what delegated stake earns that its delegators get; None: as it is."""


def check(body: Body, tx: Tx) -> None:
    if body.amount_uflk == 0 and body.share_ppm is None:
        raise Refused("zero-amount", "a stake bonds at least 1 uflk")
    if body.delegate:
        _check_delegation_form(body, tx)
        return
    check_share(body.share_ppm)
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


def _check_delegation_form(body: Body, tx: Tx) -> None:
    own = (body.role, body.holdouts, body.public_key, body.possession, body.beacon_head, body.name)
    if any(own) or body.share_ppm is not None:
        raise Refused("bad-stake", "a delegation has no role, holdouts, key, proof, beacon head, name or share")
    if len(body.delegate) != ADDRESS_BYTES:
        raise Refused("bad-stake", f"a delegate's address has {ADDRESS_BYTES} bytes, got {len(body.delegate)}")
    if body.delegate == tx.sender:
        raise Refused("own-bond", "one does not delegate to oneself: stake without a delegate adds to the own bond")
    parse_target(body.target)


def apply(context: Context, tx: Tx, body: Body) -> None:
    check_balance(context.state, tx.sender, body.amount_uflk, "stake")
    if body.delegate:
        _delegate(context, tx.sender, body)
    elif body.target == VALIDATOR:
        _bond_validator(context, tx.sender, body)
    else:
        _bond_task(context, tx.sender, body)
    if body.share_ppm is not None:
        target = make_validator_target(address_of(body.public_key)) if body.target == VALIDATOR else body.target
        set_share(context, tx.sender, target, body.share_ppm)


def _delegate(context: Context, delegator: bytes, body: Body) -> None:
    state, params = context.state, context.params.stake
    own_uflk = _check_delegate(context, body)
    pool = get_pool(state, body.delegate, body.target)
    if pool is None:
        name = format_address(body.delegate)
        raise Refused("no-delegation", f"{name} offers no share of its income in {body.target}: it takes no delegation")
    delegation = get_delegation(state, body.delegate, body.target, delegator)
    held_uflk = compute_worth_uflk(pool, delegation.shares) if delegation else 0
    _check_minimum(held_uflk + body.amount_uflk, params.min_delegation_uflk)
    most_uflk = params.max_delegated_multiple * own_uflk
    if pool.amount_uflk + body.amount_uflk > most_uflk:
        raise Refused(
            "delegation-limit",
            f"with {body.amount_uflk} uflk more, {pool.amount_uflk + body.amount_uflk} uflk would be delegated: "
            f"{params.max_delegated_multiple} times the delegate's own bond are {most_uflk} uflk",
        )
    if delegation is None and pool.delegators >= params.max_delegators:
        raise Refused("pool-full", f"this bond has {pool.delegators} delegators, the most that are allowed")
    if not 0 < compute_new_shares(pool, body.amount_uflk) <= MAX_SHARES - pool.shares:
        raise Refused("pool-worn", f"slashes left {pool.amount_uflk} uflk of {pool.shares} shares: too little to join")
    increase_delegation(context, delegator, pool, body.amount_uflk)


def _check_delegate(context: Context, body: Body) -> int:
    """The delegate's own bond in uflk; raises `Refused` when it has none that could earn."""
    kind, name = parse_target(body.target)
    if isinstance(name, bytes):
        validator = context.state.find(ValidatorRow, name)
        if validator is None or validator.owner != body.delegate:
            raise Refused("not-found", f"{format_address(body.delegate)} has no validator {format_address(name)}")
        if validator.tombstoned:
            raise Refused("tombstoned", f"validator {format_address(name)} signed twice and is out for good")
        return validator.bond_uflk
    assert kind == "task"
    _get_open_task(context, name)
    stake = get_stake(context.state, body.delegate, body.target)
    if stake is None or stake.leaving:
        raise Refused("left-task", f"{format_address(body.delegate)} has no bond in {body.target}, or is leaving it")
    return stake.amount_uflk


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
    task = _get_open_task(context, number)
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


def _get_open_task(context: Context, number: int) -> Task:
    task = context.state.find(Task, number)
    if task is None:
        raise Refused("not-found", f"there is no task {number}")
    if task.status != "open":
        raise Refused("task-closed", f"task {number} is {task.status}")
    return task


def _check_newcomer(context: Context, task: Task, body: Body) -> None:
    if not body.role:
        raise Refused("bad-stake", "the first bond in a task offers a role: trainer or voter")
    if body.role == "voter" and not body.holdouts:
        raise Refused("bad-stake", "a voter commits to its holdout of at least one domain")
    for holdout in body.holdouts:
        if holdout.domain not in task.spec.domains:
            names = ", ".join(task.spec.domains)
            raise Refused("unknown-domain", f"task {task.id} has no domain {holdout.domain!r}; it has: {names}")
    limit = get_task_params(context.state, task).max_participants
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
