"""`claim-rewards`: move a validator's income to its owner's balance."""

import msgspec

from flockchain.codec import Canonical
from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.balances import increase_balance
from flockchain.execution.context import Context
from flockchain.execution.validators import get_own_validator
from flockchain.types.ids import Address
from flockchain.types.tx import Tx

KIND = "claim-rewards"


class Body(Canonical, frozen=True):
    validator: Address


def check(body: Body, tx: Tx) -> None:
    """Nothing to check without the state."""


def apply(context: Context, tx: Tx, body: Body) -> None:
    validator = get_own_validator(context.state, body.validator, tx.sender)
    income = validator.income_uflk
    name = format_address(validator.address)
    if income == 0:
        raise Refused("no-income", f"validator {name} has no income to claim")
    context.state.put(msgspec.structs.replace(validator, income_uflk=0))
    increase_balance(context.state, tx.sender, income)
    context.add_receipt("income", tx.sender, income, f"income of validator {name}")
