"""Reward rules as pure functions: integers in, integers out, conserved to the unit; what does not divide stays.

`flalliance`: FLock's public white paper, in proportion to stake among the good. `merit`: in proportion to what an
adapter adds to the candidate, so that specialists are paid and redundant copies are not. `arena`: FLock's rank rewards,
in the order of that merit; its committee is paid by distance to consensus (`closeness.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flockchain.execution.figures import compute_lower_median
from flockchain.params import PPM


@dataclass(frozen=True, slots=True)
class Rewards:
    """What a round pays, each list in the order of what it was computed from. The rest of the pool stays there."""

    round_reward_uflk: int
    trainers_uflk: tuple[int, ...]
    committee_uflk: tuple[int, ...]

    @property
    def paid_uflk(self) -> int:
        return sum(self.trainers_uflk) + sum(self.committee_uflk)


def compute_rewards(
    *,
    pool_uflk: int,
    rounds_left: int,
    committee_ppm: int,
    trainer_shares: Sequence[int],
    committee_shares: Sequence[int],
) -> Rewards:
    """Split one round's reward, `pool // rounds_left`, by whole shares; `rounds_left` counts this round.

    `trainer_shares` come from the rule's function below and are empty when nothing was aggregated; `committee_shares`
    are seats, or seats times closeness. A side whose shares are all zero is not paid.
    """
    assert rounds_left >= 1
    assert 0 <= committee_ppm <= PPM
    round_reward_uflk = pool_uflk // rounds_left
    committee_part_uflk = round_reward_uflk * committee_ppm // PPM
    rewards = Rewards(
        round_reward_uflk,
        split_uflk(round_reward_uflk - committee_part_uflk, trainer_shares),
        split_uflk(committee_part_uflk, committee_shares),
    )
    assert rewards.paid_uflk <= round_reward_uflk <= pool_uflk
    return rewards


def split_uflk(amount_uflk: int, shares: Sequence[int]) -> tuple[int, ...]:
    """`amount_uflk` in proportion to `shares`, each rounded down."""
    total = sum(shares)
    return tuple(amount_uflk * share // total if total else 0 for share in shares)


def compute_flalliance_shares(bonds_uflk: Sequence[int]) -> tuple[int, ...]:
    """In proportion to the bonds that were frozen for the draw (a later top-up buys nothing)."""
    return tuple(bonds_uflk)


def compute_merit_shares(roots: Sequence[bytes], gains: Mapping[tuple[bytes, int], Sequence[int]]) -> tuple[int, ...]:
    """Per adapter the sum over domains of the median leave-one-out gain, floored at 0; domains count equally.

    `gains` lists, by (root, domain index), one gain in ppm for each covering seat.
    """
    shares = dict.fromkeys(roots, 0)
    for (root, _), seat_gains in sorted(gains.items()):
        shares[root] += max(0, compute_lower_median(seat_gains))
    return tuple(shares[root] for root in roots)


RANK_DECAY_NUMERATOR, RANK_DECAY_DENOMINATOR = 17, 20
"""q = 0.85: each rank earns so much of the one before (FLock's public white paper)."""
FIRST_RANK = 10**12


def compute_arena_shares(merits: Sequence[int]) -> tuple[int, ...]:
    """Rank k of m earns `(1 - q) / (1 - q^m) * q^(k - 1)`: the shares are `q^(k - 1)`, and `split_uflk` divides by
    their sum. `merits` are those of `compute_merit_shares`.

    Equal merits share what their ranks earn together, so that no order of roots decides. Without merit: no rank.
    """
    decays = [FIRST_RANK]
    while len(decays) < len(merits):
        decays.append(decays[-1] * RANK_DECAY_NUMERATOR // RANK_DECAY_DENOMINATOR)
    ranked = sorted((merit for merit in merits if merit > 0), reverse=True)
    shares = {0: 0}
    for merit in set(ranked):
        first, count = ranked.index(merit), ranked.count(merit)
        shares[merit] = sum(decays[first : first + count]) // count
    return tuple(shares[max(0, merit)] for merit in merits)
