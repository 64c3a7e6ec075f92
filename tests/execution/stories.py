"""Short-lived parameters for tests of stake: seconds instead of weeks."""

from msgspec.structs import replace

from flockchain.genesis import Genesis
from flockchain.params import ConsensusParams, Params, StakeParams
from tests.support.ledger import make_genesis

UNBONDING_MS = 100_000
EVIDENCE_AGE_MS = 80_000
MIN_BOND_UFLK = 1_000_000_000


def make_quick_genesis(
    *, validators: int = 4, bonds_uflk: tuple[int, ...] = (), consensus: ConsensusParams | None = None, **stake: int
) -> Genesis:
    """Genesis with quick periods; `stake` overrides single fields of `StakeParams`."""
    quick = replace(
        StakeParams(
            unbonding_ms=UNBONDING_MS,
            evidence_age_ms=EVIDENCE_AGE_MS,
            trusting_period_ms=50_000,
            liveness_window_ms=30_000,
            jail_ms=20_000,
            min_validator_bond_uflk=MIN_BOND_UFLK,
        ),
        **stake,
    )
    params = Params(stake=quick, consensus=consensus or ConsensusParams(late_precommit_blocks=3))
    return make_genesis(validators=validators, bonds_uflk=bonds_uflk, params=params)
