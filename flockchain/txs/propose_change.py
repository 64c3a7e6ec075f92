"""`propose-change`: a validator proposes other parameters, the next protocol version, or to cancel an approved change.

Exactly one of `settings`, `upgrade` and `cancels` is given. Proposing is approving; others send `approve-change`.
"""

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.governance import (
    MAX_CHANGE_MS,
    check_cancel,
    check_room,
    check_upgrade,
    compute_changed_params,
    propose,
)
from flockchain.execution.validators import get_voting_validator
from flockchain.types.change import Settings, Upgrade
from flockchain.types.ids import Address, Ms, Text, UInt
from flockchain.types.tx import Tx

KIND = "propose-change"


class Body(Canonical, frozen=True, kw_only=True):
    validator: Address
    """Of the sender; in the newest set."""
    settings: Settings = ()
    upgrade: Upgrade | None = None
    cancels: UInt = 0
    """Number of an approved change whose moment has not come."""
    deadline_ms: Ms
    """Header time until which more than two thirds of the power must agree."""
    reason: Text = ""


def check(body: Body, tx: Tx) -> None:
    given = [bool(body.settings), body.upgrade is not None, body.cancels > 0]
    if sum(given) != 1:
        raise Refused("bad-change", "a change has either settings, or an upgrade, or the number of a change to cancel")
    paths = [setting.path for setting in body.settings]
    if paths != sorted(set(paths)):
        raise Refused("bad-change", "settings are sorted by path, none twice")
    upgrade = body.upgrade
    if upgrade is not None and (upgrade.height > 0) == (upgrade.time_ms > 0):
        raise Refused("bad-change", "an upgrade begins at a height or at a time: give one of the two")


def apply(context: Context, tx: Tx, body: Body) -> None:
    get_voting_validator(context.state, body.validator, tx.sender)
    latest_ms = context.time_ms + MAX_CHANGE_MS
    if not context.time_ms < body.deadline_ms <= latest_ms:
        raise Refused(
            "bad-deadline",
            f"deadline {body.deadline_ms} ms: after the block's {context.time_ms} ms and until {latest_ms} ms",
        )
    if body.settings:
        compute_changed_params(context, body.settings)
    if body.upgrade is not None:
        check_upgrade(context, body.upgrade)
    if body.cancels:
        check_cancel(context, body.cancels)
    check_room(context.state, body.validator)
    propose(
        context,
        body.validator,
        body.reason,
        settings=body.settings,
        upgrade=body.upgrade,
        cancels=body.cancels,
        deadline_ms=body.deadline_ms,
    )
