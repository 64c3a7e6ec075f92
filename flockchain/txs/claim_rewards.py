"""`claim-rewards`: move a validator's income to its owner's balance, or what a delegation earned to its delegator's."""

from typing import Annotated

import msgspec
from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.crypto import ADDRESS_BYTES, format_address
from flockchain.errors import Refused
from flockchain.execution.balances import increase_balance
from flockchain.execution.context import Context
from flockchain.execution.delegation import get_delegation, get_pool, pay_earned
from flockchain.execution.staking import parse_target
from flockchain.execution.validators import get_own_validator
from flockchain.types.delegation import compute_earned_uflk
from flockchain.types.ids import OptionalAddress
from flockchain.types.tx import Tx

KIND = "claim-rewards"


class Body(Canonical, frozen=True):
    """Either the sender's own validator, or a delegate and the target of the delegation."""

    validator: OptionalAddress = b""
    delegate: OptionalAddress = b""
    target: Annotated[str, Meta(max_length=64)] = ""
    """``validator:<address in hex>`` or ``task:<id>``."""


def check(body: Body, tx: Tx) -> None:
    if bool(body.validator) == bool(body.delegate) or bool(body.delegate) != bool(body.target):
        raise Refused("bad-claim", "a claim names the sender's validator, or a delegate and the delegation's target")
    address = body.validator or body.delegate
    if len(address) != ADDRESS_BYTES:
        raise Refused("bad-claim", f"an address has {ADDRESS_BYTES} bytes, got {len(address)}")
    if body.target:
        parse_target(body.target)


def apply(context: Context, tx: Tx, body: Body) -> None:
    if body.validator:
        _claim_income(context, tx.sender, body.validator)
    else:
        _claim_earned(context, tx.sender, body)


def _claim_income(context: Context, owner: bytes, address: bytes) -> None:
    validator = get_own_validator(context.state, address, owner)
    income = validator.income_uflk
    name = format_address(validator.address)
    if income == 0:
        raise Refused("no-income", f"validator {name} has no income to claim")
    context.state.put(msgspec.structs.replace(validator, income_uflk=0))
    increase_balance(context.state, owner, income)
    context.add_receipt("income", owner, income, f"income of validator {name}")


def _claim_earned(context: Context, delegator: bytes, body: Body) -> None:
    pool = get_pool(context.state, body.delegate, body.target)
    delegation = get_delegation(context.state, body.delegate, body.target, delegator)
    name = format_address(body.delegate)
    if pool is None or delegation is None:
        raise Refused("not-found", f"the sender has no delegation to {name} in {body.target}")
    if compute_earned_uflk(pool, delegation) == 0:
        raise Refused("no-income", f"the delegation to {name} in {body.target} has earned nothing to claim")
    pool, delegation = pay_earned(context, pool, delegation)
    context.state.put(pool)
    context.state.put(delegation)
