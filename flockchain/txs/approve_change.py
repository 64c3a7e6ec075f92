"""`approve-change`: a validator agrees to an open change, and counts with its power at the time of each count."""

from flockchain.codec import Canonical
from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.governance import approve
from flockchain.execution.validators import get_voting_validator
from flockchain.types.ids import Address, UInt
from flockchain.types.rows import Approval, Change
from flockchain.types.tx import Tx

KIND = "approve-change"


class Body(Canonical, frozen=True):
    validator: Address
    """Of the sender; in the newest set."""
    change: UInt


def check(body: Body, tx: Tx) -> None:
    """Nothing to check without the state."""


def apply(context: Context, tx: Tx, body: Body) -> None:
    state = context.state
    get_voting_validator(state, body.validator, tx.sender)
    change = state.find(Change, body.change)
    if change is None:
        raise Refused("not-found", f"there is no change {body.change}: it never was, or it ran out")
    if change.status != "open":
        raise Refused("change-closed", f"change {body.change} is {change.status}: {change.outcome}")
    if change.deadline_ms < context.time_ms:
        raise Refused(
            "change-closed", f"change {body.change} ran out at {change.deadline_ms} ms, it is {context.time_ms} ms"
        )
    if state.find(Approval, body.change, body.validator) is not None:
        name = format_address(body.validator)
        raise Refused("already-approved", f"validator {name} has approved change {body.change}")
    approve(context, body.change, body.validator)
