"""Reward rules: golden amounts, and conservation to the unit."""

import random

import pytest

from flockchain.execution.rewards import (
    compute_arena_shares,
    compute_flalliance_shares,
    compute_merit_shares,
    compute_rewards,
    split_uflk,
)

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


def test_flalliance_pays_in_proportion_to_the_bonds_of_the_good() -> None:
    rewards = compute_rewards(
        pool_uflk=900_000_000,
        rounds_left=3,
        committee_ppm=300_000,
        trainer_shares=compute_flalliance_shares([100, 200, 400]),
        committee_shares=[1, 1, 1],
    )
    assert rewards.round_reward_uflk == 300_000_000
    assert rewards.trainers_uflk == (30_000_000, 60_000_000, 120_000_000)
    assert rewards.committee_uflk == (30_000_000, 30_000_000, 30_000_000)


def test_merit_pays_the_specialist_and_not_the_redundant_copy() -> None:
    gains = {
        (A, 0): [9_000, 10_000, 11_000],  # the only one good at code
        (B, 1): [100, 2_000, 900_000],  # one seat exaggerates: the median stands
        (C, 0): [-50, 0, 10],
        (C, 1): [-5_000, -4_000, 3_000],  # harm in one domain takes nothing from another
    }
    shares = compute_merit_shares([A, B, C], gains)
    assert shares == (10_000, 2_000, 0)
    rewards = compute_rewards(
        pool_uflk=1_200_000, rounds_left=1, committee_ppm=0, trainer_shares=shares, committee_shares=[3]
    )
    assert rewards.trainers_uflk == (1_000_000, 200_000, 0)
    assert rewards.committee_uflk == (0,)


def test_arena_pays_by_rank() -> None:
    """q = 0.85 and three ranks: 38.87 %, 33.04 %, 28.09 %, whatever the distance between their merits."""
    assert split_uflk(1_000_000, compute_arena_shares([7, 900_000, 8])) == (280_855, 388_726, 330_417)


def test_arena_ranks_no_adapter_without_merit() -> None:
    assert split_uflk(1_000_000, compute_arena_shares([0, 5, -3])) == (0, 1_000_000, 0)
    assert compute_arena_shares([0, 0]) == (0, 0)
    assert compute_arena_shares([]) == ()


def test_equal_merits_share_what_their_ranks_earn() -> None:
    """Ranks 2 and 3 of three earn 330,417 + 280,855 together."""
    assert split_uflk(1_000_000, compute_arena_shares([4, 9, 4])) == (305_636, 388_726, 305_636)


def test_a_thousand_ranks_sum_to_the_geometric_series() -> None:
    shares = compute_arena_shares(range(1, 1_001))
    assert shares[-1] == 10**12
    assert shares[0] == 0
    assert abs(sum(shares) - 10**12 * 20 // 3) < 1_000


def test_a_merit_without_any_gain_pays_nobody() -> None:
    rewards = compute_rewards(
        pool_uflk=100,
        rounds_left=1,
        committee_ppm=500_000,
        trainer_shares=compute_merit_shares([A], {}),
        committee_shares=[1],
    )
    assert rewards.trainers_uflk == (0,)
    assert rewards.committee_uflk == (50,)


@pytest.mark.parametrize(("amount", "shares", "parts"), [(10, [1, 1, 1], (3, 3, 3)), (7, [0, 0], (0, 0)), (5, [], ())])
def test_what_does_not_divide_stays(amount: int, shares: list[int], parts: tuple[int, ...]) -> None:
    assert split_uflk(amount, shares) == parts


def test_no_rounds_ever_pay_more_than_the_pool() -> None:
    seed = 7
    rng = random.Random(seed)
    for _ in range(300):
        pool, rounds = rng.randrange(10 ** rng.randrange(1, 18)), rng.randrange(1, 12)
        left = pool
        for number in range(rounds):
            rewards = compute_rewards(
                pool_uflk=left,
                rounds_left=rounds - number,
                committee_ppm=rng.randrange(1_000_001),
                trainer_shares=[rng.randrange(10**12) for _ in range(rng.randrange(6))],
                committee_shares=[rng.randrange(1, 8) for _ in range(rng.randrange(6))],
            )
            assert 0 <= rewards.paid_uflk <= rewards.round_reward_uflk, f"seed {seed}"
            left -= rewards.paid_uflk
        assert 0 <= left <= pool
