"""How many blocks in a row one validator can propose: what the bound on its gain is made of."""

from flockchain.rotation import Rotation, compute_changed_rotation, compute_next_rotation, compute_proposer
from tests.ledger.dice import Dice, make_seeded

SETS = 150


def make_powers(dice: Dice) -> dict[bytes, int]:
    count = dice.pick([4, 5, 7, 10, 20])
    return {bytes([i]) * 20: dice.pick([1_000, 1_000 + dice.below(50_000)]) for i in range(count)}


def raise_to_a_third(powers: dict[bytes, int]) -> bytes:
    """The first validator, with as much power as is less than a third."""
    own = min(powers)
    powers[own] = (sum(powers.values()) - powers[own] - 1) // 2
    return own


def find_largest_below_a_third(powers: dict[bytes, int]) -> bytes:
    total = sum(powers.values())
    return max((a for a, power in powers.items() if 3 * power < total), key=lambda a: powers[a])


def measure_longest_run(rotation: Rotation, address: bytes, turns: int) -> int:
    longest = run = 0
    for _ in range(turns):
        run = run + 1 if compute_proposer(rotation, 0) == address else 0
        longest = max(longest, run)
        rotation = compute_next_rotation(rotation)
    return longest


def test_one_validator_below_a_third_proposes_at_most_two_blocks_in_a_row() -> None:
    dice, longest = make_seeded(1), 0
    for _ in range(SETS):
        powers = make_powers(dice)
        own = raise_to_a_third(powers) if dice.below(2) else find_largest_below_a_third(powers)
        longest = max(longest, measure_longest_run(compute_changed_rotation(None, powers), own, 100))
    assert longest == 2


def test_changing_its_bond_gives_it_no_third_block() -> None:
    """It moves its power up and down below a third, every few blocks, as no real bond could."""
    dice, longest = make_seeded(2), 0
    for _ in range(SETS):
        powers = make_powers(dice)
        rotation, own = compute_changed_rotation(None, powers), find_largest_below_a_third(powers)
        others = sum(powers.values()) - powers[own]
        run = 0
        for _ in range(60):
            run = run + 1 if compute_proposer(rotation, 0) == own else 0
            longest = max(longest, run)
            rotation = compute_next_rotation(rotation)
            if dice.is_one_in(3):
                powers[own] = 1 + dice.below((others - 1) // 2)
                rotation = compute_changed_rotation(rotation, powers)
    assert longest == 2


def test_a_newcomer_below_a_third_waits_longer_than_a_draw_is_pending() -> None:
    """It chose its beacon chain when it joined: by its first turn every frozen draw has been made."""
    dice, soonest = make_seeded(3), 100
    for _ in range(SETS):
        powers = make_powers(dice)
        rotation = compute_changed_rotation(None, powers)
        for _ in range(dice.below(30)):
            rotation = compute_next_rotation(rotation)
        newcomer = b"\xff" * 20
        powers[newcomer] = (sum(powers.values()) - 1) // (2 + dice.below(3))
        rotation, turns = compute_changed_rotation(rotation, powers), 0
        while compute_proposer(rotation, 0) != newcomer:
            rotation, turns = compute_next_rotation(rotation), turns + 1
        soonest = min(soonest, turns)
    assert soonest >= 3
