"""The validator set: who signs blocks of a height, with what power.

A change of bonds at height H takes effect at H+2: the set of H+1 is already committed to by the header of H.
Priorities of the rotation stay within 63 bits because all power is money, and supply is at most 2**60.
"""

from collections.abc import Mapping

import msgspec

from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.state import State
from flockchain.params import StakeParams
from flockchain.rotation import Rotation, compute_changed_rotation, compute_next_rotation
from flockchain.types.chain import Validator
from flockchain.types.light import compute_validators_hash as compute_set_hash
from flockchain.types.rows import SetMember, ValidatorRow, ValidatorSet

POWER_DELAY_BLOCKS = 2
"""A change of bonds at height H is in the set of H+2."""


def count_bond_uflk(bond_uflk: int, delegated_uflk: int, params: StakeParams) -> int:
    """What an own bond with its delegations counts, as power and in draws: delegations up to a multiple of it."""
    return bond_uflk + min(delegated_uflk, params.max_delegated_multiple * bond_uflk)


def compute_power(validator: ValidatorRow, params: StakeParams) -> int:
    """Voting power of an eligible validator: one per uflk that counts."""
    return count_bond_uflk(validator.bond_uflk, validator.delegated_uflk, params)


def get_validators(state: State, height: int) -> tuple[SetMember, ...]:
    """The set that signs `height`, sorted by address; known for the last, the current and the next height."""
    return state.get(ValidatorSet, height).members


def get_rotation(state: State, height: int) -> Rotation:
    """Powers and priorities at round 0 of `height`: `rotation.compute_proposer(rotation, round)` names the proposer."""
    return _to_rotation(get_validators(state, height))


def compute_validators_hash(members: tuple[SetMember, ...]) -> bytes:
    """What a header commits to: addresses, keys and powers, not priorities."""
    return compute_set_hash(tuple(Validator(m.address, m.public_key, m.power) for m in members))


def is_eligible(validator: ValidatorRow, params: StakeParams) -> bool:
    """Whether it may have power: enough bonded by its owner alone, neither jailed nor tombstoned."""
    return (
        validator.bond_uflk >= params.min_validator_bond_uflk
        and validator.jailed_until_ms == 0
        and not validator.tombstoned
    )


def compute_powers(state: State, params: StakeParams) -> Mapping[bytes, int]:
    """Power by address of the `max_validators` strongest eligible validators (ties: lowest address)."""
    powers = {
        row.address: compute_power(row, params) for row in state.iterate(ValidatorRow) if is_eligible(row, params)
    }
    strongest = sorted(powers, key=lambda address: (-powers[address], address))
    return {address: powers[address] for address in strongest[: params.max_validators]}


def make_set(state: State, height: int, rotation: Rotation) -> ValidatorSet:
    keys = (state.get(ValidatorRow, address).public_key for address in rotation.addresses)
    columns = zip(rotation.addresses, keys, rotation.powers, rotation.priorities, strict=True)
    return ValidatorSet(height, tuple(SetMember(*column) for column in columns))


def get_own_validator(state: State, address: bytes, owner: bytes) -> ValidatorRow:
    """The validator, if `owner` owns it; raises `Refused`."""
    validator = state.find(ValidatorRow, address)
    if validator is None:
        raise Refused("not-found", f"there is no validator {format_address(address)}")
    if validator.owner != owner:
        raise Refused("not-owner", f"validator {format_address(address)} belongs to {format_address(validator.owner)}")
    return validator


def get_voting_validator(state: State, address: bytes, owner: bytes) -> ValidatorRow:
    """The owner's validator, if it has power in the newest set; raises `Refused`."""
    validator = get_own_validator(state, address, owner)
    if not validator.active:
        raise Refused("not-active", f"validator {format_address(address)} has no power in the newest validator set")
    return validator


def process_validator_set(context: Context) -> None:
    """Write the set of H+2, forget that of H-1.

    Were nobody eligible, the present set would go on signing: a chain that stops cannot even unjail.
    """
    state, height = context.state, context.height
    members = get_validators(state, height + 1)
    rotation = compute_next_rotation(_to_rotation(members))
    following: ValidatorSet | None = None
    if context.is_set_stale:
        powers = compute_powers(state, context.params.stake)
        if powers and powers != dict(zip(rotation.addresses, rotation.powers, strict=True)):
            rotation = compute_changed_rotation(rotation, powers)
            following = make_set(state, height + 2, rotation)
            _mark_active(state, powers)
    if following is None:
        turned = zip(members, rotation.priorities, strict=True)
        following = ValidatorSet(
            height + 2, tuple(SetMember(m.address, m.public_key, m.power, priority) for m, priority in turned)
        )
    state.put(following)
    if state.find(ValidatorSet, height - 1) is not None:
        state.delete(ValidatorSet, height - 1)


def _mark_active(state: State, powers: Mapping[bytes, int]) -> None:
    for row in state.iterate(ValidatorRow):
        is_active = row.address in powers
        if row.active != is_active:
            state.put(msgspec.structs.replace(row, active=is_active))


def _to_rotation(members: tuple[SetMember, ...]) -> Rotation:
    return Rotation(
        tuple(m.address for m in members), tuple(m.power for m in members), tuple(m.priority for m in members)
    )
