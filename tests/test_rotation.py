"""Proposer rotation: fair over a period, and fair through changes of the set."""

from collections import Counter

from flockchain.rotation import compute_changed_rotation, compute_next_rotation, compute_proposer

A, B, C, D = (bytes([letter]) * 20 for letter in b"abcd")


def test_each_validator_proposes_in_exact_proportion_over_a_period() -> None:
    rotation = compute_changed_rotation(None, {A: 1, B: 2, C: 3, D: 4})
    turns: Counter[bytes] = Counter()
    for _ in range(100):
        turns[compute_proposer(rotation, 0)] += 1
        rotation = compute_next_rotation(rotation)
    assert turns == {A: 10, B: 20, C: 30, D: 40}


def test_a_later_round_of_one_height_has_the_next_proposer() -> None:
    rotation = compute_changed_rotation(None, {A: 1, B: 1, C: 1})
    assert [compute_proposer(rotation, turn) for turn in range(4)] == [A, B, C, A]


def test_a_newcomer_does_not_propose_first() -> None:
    rotation = compute_changed_rotation(None, {A: 10, B: 10})
    joined = compute_changed_rotation(rotation, {A: 10, B: 10, C: 10})
    assert compute_proposer(joined, 0) != C
    assert C in {compute_proposer(joined, turn) for turn in range(6)}


def test_leaving_and_joining_again_gains_no_turn() -> None:
    rotation = compute_changed_rotation(None, {A: 5, B: 5, C: 5})
    stayed = Counter(compute_proposer(rotation, turn) for turn in range(30))[C]
    turns = 0
    for height in range(30):
        powers = {A: 5, B: 5} if height % 6 == 5 else {A: 5, B: 5, C: 5}
        rotation = compute_changed_rotation(rotation, powers)
        turns += compute_proposer(rotation, 0) == C
        rotation = compute_next_rotation(rotation)
    assert turns < stayed


def test_a_huge_power_keeps_priorities_bounded() -> None:
    rotation = compute_changed_rotation(None, {A: 1, B: 10**15})
    for _ in range(50):
        rotation = compute_next_rotation(rotation)
    smaller = compute_changed_rotation(rotation, {A: 1, B: 2})
    assert max(smaller.priorities) - min(smaller.priorities) <= 2 * 3 + 1
