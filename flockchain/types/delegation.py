"""What the rows of a delegation are worth: readers compute it as execution does."""

from flockchain.types.rows import Delegation, DelegationPool

INDEX_SCALE = 10**9
"""Of `DelegationPool.index_nuflk`."""


def compute_worth_uflk(pool: DelegationPool, shares: int) -> int:
    """What so many shares of the pool are worth now, rounded down."""
    return pool.amount_uflk * shares // pool.shares if pool.shares else 0


def compute_earned_uflk(pool: DelegationPool, delegation: Delegation) -> int:
    """What the delegation has earned and not been paid, rounded down."""
    return delegation.shares * (pool.index_nuflk - delegation.index_nuflk) // INDEX_SCALE


def get_share_ppm(pool: DelegationPool, time_ms: int) -> int:
    """The share in force at `time_ms`."""
    return pool.next_share_ppm if 0 < pool.next_share_ms <= time_ms else pool.share_ppm
