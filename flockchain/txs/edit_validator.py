"""`edit-validator`: a new name, the head of a new beacon chain before the old one ends, or the share for delegators.

The new head is in force `beacon_delay_blocks` heights later: nobody can tell the beacon so far ahead, so nobody can
choose a chain whose next link suits a draw.
"""

import msgspec

from flockchain.codec import Canonical
from flockchain.crypto import HASH_BYTES
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.delegation import check_share, set_share
from flockchain.execution.staking import make_validator_target
from flockchain.execution.validators import get_own_validator
from flockchain.types.ids import Address, OptionalHash, Ppm, Text
from flockchain.types.tx import Tx

KIND = "edit-validator"


class Body(Canonical, frozen=True):
    validator: Address
    name: Text
    """Empty: as it is."""
    beacon_head: OptionalHash
    """Empty: as it is."""
    share_ppm: Ppm | None = None
    """Part of what delegated stake earns that its delegators get; None: as it is. A lower one waits `unbonding_ms`."""


def check(body: Body, tx: Tx) -> None:
    if not body.name and not body.beacon_head and body.share_ppm is None:
        raise Refused("nothing-to-do", "edit-validator changes a name, a beacon head or a share, and got none")
    check_share(body.share_ppm)
    if len(body.beacon_head) not in (0, HASH_BYTES):
        raise Refused("bad-beacon", f"a beacon head has {HASH_BYTES} bytes, got {len(body.beacon_head)}")


def apply(context: Context, tx: Tx, body: Body) -> None:
    validator = get_own_validator(context.state, body.validator, tx.sender)
    if body.beacon_head and validator.next_beacon_head:
        raise Refused("beacon-pending", f"a new beacon head is pending until height {validator.next_beacon_height}")
    if body.name:
        validator = msgspec.structs.replace(validator, name=body.name)
    if body.beacon_head:
        height = context.height + context.params.stake.beacon_delay_blocks
        validator = msgspec.structs.replace(validator, next_beacon_head=body.beacon_head, next_beacon_height=height)
    context.state.put(validator)
    if body.share_ppm is not None:
        set_share(context, tx.sender, make_validator_target(validator.address), body.share_ppm)
