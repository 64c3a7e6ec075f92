"""What evidence proves, in the terms in which it is punished."""

from dataclasses import dataclass

from flockchain.crypto import format_address, tagged_hash
from flockchain.errors import Refused
from flockchain.execution.staking import make_validator_target
from flockchain.execution.state import State
from flockchain.execution.timemarks import get_time_of_ms
from flockchain.execution.validators import POWER_DELAY_BLOCKS
from flockchain.types.rows import Chain, ValidatorRow


@dataclass(frozen=True, slots=True)
class Offence:
    key: bytes
    """Names the offence, whatever evidence proves it: it is punished once."""
    owner: bytes
    """Whose bond is slashed."""
    target: str
    offence_ms: int
    """Header time, at most the offence's own: counts its age."""
    as_of_height: int
    """What was bonded at the end of this block is slashed, wherever it is now."""
    penalty_ppm: int
    reason: str
    validator: bytes | None = None
    """Tombstoned with the slash; None: the offence is a participant's."""
    task: int = 0
    round: int = 0


def compute_offence_key(kind: str, *parts: bytes | int) -> bytes:
    encoded = [part if isinstance(part, bytes) else part.to_bytes(8, "big") for part in parts]
    return tagged_hash(f"flockchain/offence/{kind}", encoded)


def get_offender(state: State, address: bytes, height: int) -> ValidatorRow:
    """The validator that could sign at `height`; raises `Refused`."""
    validator = state.find(ValidatorRow, address)
    name = format_address(address)
    if validator is None:
        raise Refused("not-found", f"there is no validator {name}")
    if not validator.joined_height <= height <= state.get(Chain).height + 1:
        raise Refused(
            "bad-evidence",
            f"height {height} is not between {name}'s first, {validator.joined_height}, and the next block's, "
            f"{state.get(Chain).height + 1}",
        )
    return validator


def make_double_sign(state: State, validator: ValidatorRow, height: int, what: str) -> Offence:
    """The offence of signing twice in one step; one per validator and height, and the first one is its last."""
    time_ms = get_time_of_ms(state, height)
    if time_ms is None:
        raise Refused("evidence-too-old", f"height {height} is older than any evidence that counts")
    return Offence(
        key=compute_offence_key("double-sign", validator.address, height),
        owner=validator.owner,
        target=make_validator_target(validator.address),
        offence_ms=time_ms,
        as_of_height=max(0, height - POWER_DELAY_BLOCKS),
        penalty_ppm=state.get(Chain).params.stake.slash_double_sign_ppm,
        reason=f"validator {format_address(validator.address)} signed two {what} at height {height}",
        validator=validator.address,
    )
