"""`unstake`: take a bond or a delegation out through the unbonding queue, slashable there until it is released.

A delegator may leave at any time: what stood behind a training round or a signature is slashed for it in the queue too.
"""

from typing import Annotated

from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.delegation import begin_undelegation, get_delegation, get_pool
from flockchain.execution.staking import (
    begin_unbonding,
    get_stake,
    is_drawn_in_open_round,
    is_last_eligible,
    parse_target,
)
from flockchain.types.delegation import compute_worth_uflk
from flockchain.types.ids import OptionalAddress, Uflk
from flockchain.types.rows import Task, ValidatorRow
from flockchain.types.tx import Tx

KIND = "unstake"


class Body(Canonical, frozen=True):
    target: Annotated[str, Meta(max_length=64)]
    """``validator:<address in hex>`` or ``task:<id>``."""
    amount_uflk: Uflk
    delegate: OptionalAddress = b""
    """To whom it was delegated; empty: the sender's own bond."""


def check(body: Body, tx: Tx) -> None:
    parse_target(body.target)
    if body.amount_uflk == 0:
        raise Refused("zero-amount", "unstake takes out at least 1 uflk")


def apply(context: Context, tx: Tx, body: Body) -> None:
    if body.delegate:
        _undelegate(context, tx.sender, body)
    else:
        _unbond(context, tx.sender, body)


def _undelegate(context: Context, sender: bytes, body: Body) -> None:
    pool = get_pool(context.state, body.delegate, body.target)
    delegation = get_delegation(context.state, body.delegate, body.target, sender)
    worth = compute_worth_uflk(pool, delegation.shares) if pool and delegation else 0
    if pool is None or delegation is None or body.amount_uflk > worth:
        raise Refused(
            "insufficient-stake",
            f"unstake of {body.amount_uflk} uflk exceeds the delegation of {worth} uflk in {body.target}",
        )
    _check_queue(context, len(delegation.unbonding))
    _check_rest(worth - body.amount_uflk, context.params.stake.min_delegation_uflk)
    begin_undelegation(context, pool, delegation, body.amount_uflk)


def _unbond(context: Context, sender: bytes, body: Body) -> None:
    stake = get_stake(context.state, sender, body.target)
    bonded = stake.amount_uflk if stake else 0
    if stake is None or body.amount_uflk > bonded:
        raise Refused(
            "insufficient-stake",
            f"unstake of {body.amount_uflk} uflk exceeds the bond of {bonded} uflk in {body.target}",
        )
    _check_queue(context, len(stake.unbonding))
    kind, name = parse_target(body.target)
    if kind == "validator":
        assert isinstance(name, bytes)
        _check_validator(context, name, bonded - body.amount_uflk)
    else:
        assert isinstance(name, int)
        _check_participant(context, sender, name, bonded - body.amount_uflk)
    begin_unbonding(context, sender, body.target, body.amount_uflk)


def _check_queue(context: Context, entries: int) -> None:
    limit = context.params.stake.max_unbondings_per_bond
    if entries >= limit:
        raise Refused("too-many-unbondings", f"{limit} parts of this bond are unbonding already: wait for one to end")


def _check_validator(context: Context, address: bytes, rest_uflk: int) -> None:
    validator = context.state.get(ValidatorRow, address)
    minimum = context.params.stake.min_validator_bond_uflk
    if rest_uflk < minimum and is_last_eligible(context, validator):
        raise Refused("last-validator", f"{format_address(address)} is the last active validator: without it no block")
    _check_rest(rest_uflk, minimum)


def _check_participant(context: Context, owner: bytes, number: int, rest_uflk: int) -> None:
    if is_drawn_in_open_round(context.state, owner, number):
        raise Refused("drawn", f"the owner is drawn in the current round of task {number}: unstake when it has settled")
    task = context.state.find(Task, number)
    if task is not None and task.status == "open":
        _check_rest(rest_uflk, task.spec.min_bond_uflk)


def _check_rest(rest_uflk: int, minimum_uflk: int) -> None:
    if 0 < rest_uflk < minimum_uflk:
        raise Refused(
            "below-minimum",
            f"a rest of {rest_uflk} uflk is below the minimum bond of {minimum_uflk} uflk: leave that much or nothing",
        )
