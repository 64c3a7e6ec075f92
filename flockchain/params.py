"""Chain parameters: every number that all nodes must share, in genesis and changed only by a decided transaction.

Defaults suit a devnet on one machine; `genesis/README.md` explains each for a real network.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from flockchain.codec import Canonical, encode
from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.types.ids import Ms, Ppm, Uflk, UInt

PPM = 1_000_000
UFLK_PER_FLK = 1_000_000
DAY_MS = 86_400_000


class ConsensusParams(Canonical, frozen=True, kw_only=True):
    min_block_interval_ms: Ms = 20
    """A proposer waits at least this long after the last block's time."""
    idle_block_interval_ms: Ms = 10_000
    """Without work, an empty block is made after this long."""
    timeout_propose_ms: Ms = 1_000
    timeout_propose_delta_ms: Ms = 500
    timeout_prevote_ms: Ms = 500
    timeout_prevote_delta_ms: Ms = 250
    timeout_precommit_ms: Ms = 500
    timeout_precommit_delta_ms: Ms = 250
    precision_ms: Ms = 500
    """Clock difference tolerated between honest validators (proposer-based timestamps)."""
    message_delay_ms: Ms = 2_000
    """Age tolerated of a first proposal; grows by a tenth per round."""
    max_block_bytes: UInt = 4_194_304
    max_block_txs: UInt = 5_000
    max_tx_bytes: UInt = 65_536
    late_precommit_blocks: UInt = 20


class StakeParams(Canonical, frozen=True, kw_only=True):
    max_validators: UInt = 100
    min_validator_bond_uflk: Uflk = 1_000 * UFLK_PER_FLK
    max_unbondings_per_bond: UInt = 8
    """Entries that one bond may have in the unbonding queue at once."""
    min_delegation_uflk: Uflk = 1 * UFLK_PER_FLK
    max_delegated_multiple: UInt = 10
    """Delegated stake counts, and is taken, up to so many times the delegate's own bond."""
    max_delegators: UInt = 10_000
    """Of one bond: bounds what a slash has to look at."""
    beacon_delay_blocks: UInt = 20
    """A new beacon head registered with `edit-validator` is in force this many heights later."""
    unbonding_ms: Ms = 21 * DAY_MS
    evidence_age_ms: Ms = 20 * DAY_MS
    trusting_period_ms: Ms = 14 * DAY_MS
    liveness_window_ms: Ms = 600_000
    min_signed_ppm: Ppm = 500_000
    """Share of the window's blocks that a validator must have signed, late precommits counted in full."""
    jail_ms: Ms = 600_000
    slash_double_sign_ppm: Ppm = 50_000
    slash_downtime_ppm: Ppm = 100
    reporter_share_ppm: Ppm = 100_000
    inflation_ppm_per_year: Ppm = 20_000
    max_inflation_per_block_uflk: Uflk = 10 * UFLK_PER_FLK


class FeeParams(Canonical, frozen=True, kw_only=True):
    min_fee_uflk: Uflk = 100
    fee_per_byte_uflk: Uflk = 1
    max_txs_per_account_in_mempool: UInt = 64
    max_expiry_ms: Ms = 3_600_000
    """A transaction may expire at most this long after the block that holds it."""
    reserved_lane_ppm: Ppm = 500_000
    """Part of a block's bytes kept for free transactions of drawn members."""


class TaskParams(Canonical, frozen=True, kw_only=True):
    create_deposit_uflk: Uflk = 10 * UFLK_PER_FLK
    max_open_tasks: UInt = 64
    max_rounds: UInt = 10_000
    max_participants: UInt = 1_000
    max_domains: UInt = 16
    max_seats: UInt = 63
    min_phase_ms: Ms = 200
    max_phase_ms: Ms = 30 * DAY_MS
    max_penalty_ppm: Ppm = 500_000
    """Cap of every penalty a task may state, of the bond, per offence."""
    max_adapter_bytes: UInt = 4 * 2**30
    max_tickets_per_account: UInt = 100
    max_draw_attempts: UInt = 64
    """A committee draw is repeated until every domain is covered by at least three seats, at most so often."""
    missed_rounds: UInt = 2
    """A trainer that was drawn and did not submit so many times in a row is jailed in the task."""
    benched_rounds: UInt = 2
    """For so many training rounds."""


class Params(Canonical, frozen=True, kw_only=True):
    consensus: ConsensusParams = ConsensusParams()
    stake: StakeParams = StakeParams()
    fees: FeeParams = FeeParams()
    tasks: TaskParams = TaskParams()

    def hash(self) -> bytes:
        return sha256(encode(self))


_LONG_MS = 3_650 * DAY_MS

RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "consensus.min_block_interval_ms": (0, 60_000),
        "consensus.idle_block_interval_ms": (1, DAY_MS),
        "consensus.timeout_propose_ms": (1, 600_000),
        "consensus.timeout_propose_delta_ms": (1, 600_000),
        "consensus.timeout_prevote_ms": (1, 600_000),
        "consensus.timeout_prevote_delta_ms": (1, 600_000),
        "consensus.timeout_precommit_ms": (1, 600_000),
        "consensus.timeout_precommit_delta_ms": (1, 600_000),
        "consensus.precision_ms": (1, 600_000),
        "consensus.message_delay_ms": (1, 600_000),
        "consensus.max_block_bytes": (16_384, 4_194_304),  # what a peer's message can carry
        "consensus.max_block_txs": (1, 100_000),
        "consensus.max_tx_bytes": (1_024, 65_536),  # what a peer's message can carry
        "consensus.late_precommit_blocks": (1, 1_000),
        "stake.max_validators": (1, 1_000),
        "stake.min_validator_bond_uflk": (1, 2**60),
        "stake.max_unbondings_per_bond": (1, 1_000),
        "stake.min_delegation_uflk": (1, 2**60),
        "stake.max_delegated_multiple": (0, 1_000),
        "stake.max_delegators": (0, 1_000_000),
        "stake.beacon_delay_blocks": (1, 100_000),
        "stake.unbonding_ms": (1, _LONG_MS),
        "stake.evidence_age_ms": (1, _LONG_MS),
        "stake.trusting_period_ms": (1, _LONG_MS),
        "stake.liveness_window_ms": (1, _LONG_MS),
        "stake.min_signed_ppm": (0, PPM),
        "stake.jail_ms": (0, _LONG_MS),
        "stake.slash_double_sign_ppm": (0, PPM),
        "stake.slash_downtime_ppm": (0, PPM),
        "stake.reporter_share_ppm": (0, PPM),
        "stake.inflation_ppm_per_year": (0, PPM),
        "stake.max_inflation_per_block_uflk": (0, 2**50),
        "fees.min_fee_uflk": (0, 1_000 * UFLK_PER_FLK),
        "fees.fee_per_byte_uflk": (0, UFLK_PER_FLK),
        "fees.max_txs_per_account_in_mempool": (1, 10_000),
        "fees.max_expiry_ms": (1_000, 30 * DAY_MS),
        "fees.reserved_lane_ppm": (0, PPM),
        "tasks.create_deposit_uflk": (0, 2**60),
        "tasks.max_open_tasks": (0, 1_000),
        "tasks.max_rounds": (1, 10_000),
        "tasks.max_participants": (1, 10_000),
        "tasks.max_domains": (1, 256),
        "tasks.max_seats": (3, 63),
        "tasks.min_phase_ms": (1, _LONG_MS),
        "tasks.max_phase_ms": (1, _LONG_MS),
        "tasks.max_penalty_ppm": (0, PPM),
        "tasks.max_adapter_bytes": (1, 2**40),
        "tasks.max_tickets_per_account": (1, 1_000_000),
        "tasks.max_draw_attempts": (1, 10_000),
        "tasks.missed_rounds": (1, 10_000),
        "tasks.benched_rounds": (0, 10_000),
    }
)
"""Least and most of every parameter: beyond it the chain could not go on, or nobody could afford to change it back."""

RISING: Mapping[str, str] = MappingProxyType(
    {
        "stake.unbonding_ms": "light clients trust older headers for as long as their signers could be slashed",
        "stake.evidence_age_ms": "light clients trust older headers for as long as their signers could be slashed",
        "consensus.max_tx_bytes": "the ballots of open tasks must fit",
    }
)
"""Parameters that a change may not lower, with the reason."""


def check_params(params: Params) -> None:
    """Refuse parameters that break a promise of docs/protocol.md; used in genesis and in every change."""
    for path, (least, most) in RANGES.items():
        value = get_param(params, path)
        if not least <= value <= most:
            raise Refused("bad-params", f"{path} is {value}, possible is {least}..{most}")
    stake = params.stake
    if not stake.trusting_period_ms < stake.evidence_age_ms < stake.unbonding_ms:
        raise Refused(
            "bad-params",
            f"need trusting_period_ms < evidence_age_ms < unbonding_ms, got "
            f"{stake.trusting_period_ms}, {stake.evidence_age_ms}, {stake.unbonding_ms}",
        )
    if params.consensus.max_tx_bytes >= params.consensus.max_block_bytes // 4:
        raise Refused("bad-params", "consensus.max_tx_bytes must be below a quarter of consensus.max_block_bytes")
    if params.tasks.min_phase_ms > params.tasks.max_phase_ms:
        raise Refused("bad-params", "tasks.min_phase_ms is above tasks.max_phase_ms: no task could be created")


def check_params_change(before: Params, after: Params) -> None:
    """Refuse a change that `check_params` refuses, that changes nothing, or lowers what may only rise."""
    if after == before:
        raise Refused("nothing-to-do", "all of these parameters have these values already")
    check_params(after)
    for path, why in RISING.items():
        old, new = get_param(before, path), get_param(after, path)
        if new < old:
            raise Refused("bad-params", f"{path} may only rise, from {old}: {why}")


def get_param(params: Params, path: str) -> int:
    """The value under a path such as ``fees.min_fee_uflk``; raises `Refused`."""
    if path not in RANGES:
        raise Refused("unknown-parameter", f"there is no parameter {path!r}; `flockchain query params` names them all")
    group, _, name = path.partition(".")
    value: int = getattr(getattr(params, group), name)
    return value


def replace_params(params: Params, values: Mapping[str, int]) -> Params:
    """The parameters with other values by path; raises `Refused` for a path that there is not."""
    changed: dict[str, Any] = {}
    for path, value in values.items():
        get_param(params, path)
        group, _, name = path.partition(".")
        changed[group] = msgspec.structs.replace(changed.get(group, getattr(params, group)), **{name: value})
    return msgspec.structs.replace(params, **changed)
