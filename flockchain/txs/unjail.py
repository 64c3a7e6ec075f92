"""`unjail`: bring a validator back that was jailed for downtime, once its time is over."""

import msgspec

from flockchain.codec import Canonical
from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.validators import get_own_validator
from flockchain.types.ids import Address
from flockchain.types.tx import Tx

KIND = "unjail"


class Body(Canonical, frozen=True):
    validator: Address


def check(body: Body, tx: Tx) -> None:
    """Nothing to check without the state."""


def apply(context: Context, tx: Tx, body: Body) -> None:
    validator = get_own_validator(context.state, body.validator, tx.sender)
    name = format_address(validator.address)
    if validator.tombstoned:
        raise Refused("tombstoned", f"validator {name} signed twice and is out for good")
    if validator.jailed_until_ms == 0:
        raise Refused("not-jailed", f"validator {name} is not jailed")
    if context.time_ms < validator.jailed_until_ms:
        raise Refused(
            "jailed", f"validator {name} is jailed until {validator.jailed_until_ms} ms, it is {context.time_ms} ms"
        )
    minimum = context.params.stake.min_validator_bond_uflk
    if validator.bond_uflk < minimum:
        raise Refused(
            "below-minimum", f"bond of {validator.bond_uflk} uflk is below the minimum bond of {minimum} uflk"
        )
    context.state.put(msgspec.structs.replace(validator, jailed_until_ms=0))
    context.is_set_stale = True
    context.add_receipt("unjail", tx.sender, 0, f"validator {name} may sign again")
