"""Chain parameters: every number that all nodes must share, in genesis and changed only by a decided transaction.

Defaults suit a devnet on one machine; `genesis/README.md` explains each for a real network.
"""

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


def check_params(params: Params) -> None:
    """Refuse parameters that break a promise of docs/protocol.md; used in genesis and in every change."""
    stake = params.stake
    if not stake.trusting_period_ms < stake.evidence_age_ms < stake.unbonding_ms:
        raise Refused(
            "bad-params",
            f"need trusting_period_ms < evidence_age_ms < unbonding_ms, got "
            f"{stake.trusting_period_ms}, {stake.evidence_age_ms}, {stake.unbonding_ms}",
        )
    for name in ("min_signed_ppm", "slash_double_sign_ppm", "slash_downtime_ppm", "reporter_share_ppm"):
        if getattr(stake, name) > PPM:
            raise Refused("bad-params", f"stake.{name} is {getattr(stake, name)} ppm, at most {PPM} is possible")
    if params.tasks.max_penalty_ppm > PPM or params.fees.reserved_lane_ppm > PPM:
        raise Refused("bad-params", f"tasks.max_penalty_ppm and fees.reserved_lane_ppm are at most {PPM}")
    if stake.max_delegated_multiple > 1_000 or stake.min_delegation_uflk < 1:
        raise Refused(
            "bad-params", "stake.max_delegated_multiple is at most 1000, stake.min_delegation_uflk at least 1"
        )
    if stake.max_validators < 1 or stake.min_validator_bond_uflk < 1:
        raise Refused("bad-params", "stake.max_validators and stake.min_validator_bond_uflk are at least 1")
    if params.consensus.max_tx_bytes >= params.consensus.max_block_bytes // 4:
        raise Refused("bad-params", "consensus.max_tx_bytes must be below a quarter of consensus.max_block_bytes")
