"""Draws come out as often as exact arithmetic says, whole outcomes and not only averages, on fixed seeds."""

from collections import Counter

import pytest

from flockchain.crypto import sha256
from flockchain.execution import draw as drawing
from flockchain.types.rows import Candidate, Draw
from tests.randomness.exact import Outcome, compute_chances, compute_chi_square, compute_tail

DRAWS = 3_000
ALL = frozenset({0, 1})
CASES: dict[str, tuple[list[int], int, int, list[frozenset[int]], int]] = {
    "weights": ([1, 2, 3, 4], 2, 1, [], 0),
    "a cap": ([5, 1, 1, 9], 3, 2, [], 0),
    "committee": ([2, 2, 8, 1, 3], 6, 2, [], 0),
    "a rare domain": ([3, 3, 2, 1, 1], 4, 2, [frozenset({0}), frozenset({0}), ALL, ALL, ALL], 2),
}


def address(index: int) -> bytes:
    return bytes([index + 1]) * 20


def make_draw(tickets: list[int], seats: int, cap: int, covers: list[frozenset[int]]) -> Draw:
    domains = [tuple(sorted(covered)) for covered in covers] or [()] * len(tickets)
    candidates = tuple(Candidate(address(i), count * 10, count, domains[i]) for i, count in enumerate(tickets))
    return Draw(1, 1, "voter" if covers else "trainer", 2, seats, cap, candidates, b"", 0, ())


def count_outcomes(tickets: list[int], seats: int, cap: int, covers: list[frozenset[int]], domains: int) -> Counter:
    counts: Counter[Outcome] = Counter()
    row = make_draw(tickets, seats, cap, covers)
    for i in range(DRAWS):
        beacon = sha256(b"frequencies", i.to_bytes(8, "big"))
        _, drawn = drawing.compute_draw(row, beacon, domains=domains, max_attempts=1_000)
        held = {member.address: member.seats for member in drawn}
        counts[tuple(held.get(address(j), 0) for j in range(len(tickets)))] += 1
    return counts


@pytest.mark.parametrize("name", CASES)
def test_outcomes_come_as_often_as_their_exact_chance(name: str) -> None:
    case = CASES[name]
    statistic, bound = compute_chi_square(count_outcomes(*case), compute_chances(*case))
    assert statistic < bound


@pytest.mark.parametrize("name", CASES)
def test_a_draw_that_favours_the_first_ticket_by_a_tenth_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a test that let this pass would prove nothing."""
    real = drawing._hash_number
    tilted = [0]

    def tilt(*place: object) -> int:
        number = real(*place)  # type: ignore[arg-type]
        tilted[0] += number % 10 == 0
        return 0 if number % 10 == 0 else number

    monkeypatch.setattr(drawing, "_hash_number", tilt)
    case = CASES[name]
    statistic, bound = compute_chi_square(count_outcomes(*case), compute_chances(*case))
    assert tilted[0] > 0
    assert statistic > bound


def test_without_a_cap_seats_are_hypergeometric() -> None:
    """As in the table of unlucky committees in docs/protocol.md: 20 % of 2,100 tickets, at least 8 of 21 seats."""
    assert compute_tail(2_100, 420, 21, 8) == pytest.approx(0.042, abs=0.001)
    chances = compute_chances([2, 3], 3, 3)
    assert float(sum(c for held, c in chances.items() if held[0] >= 2)) == pytest.approx(compute_tail(5, 2, 3, 2))


def test_a_judge_of_a_rare_domain_is_drawn_more_often_than_its_tickets_say() -> None:
    """Redraws until every domain is covered favour those who cover it: stated in docs/protocol.md."""
    tickets, seats, cap, covers, domains = CASES["a rare domain"]
    plain = compute_chances(tickets, seats, cap)
    covered = compute_chances(tickets, seats, cap, covers, domains)

    def mean(chances: dict[Outcome, object], account: int) -> float:
        return float(sum(held[account] * chance for held, chance in chances.items()))  # type: ignore[operator]

    assert mean(covered, 4) > 1.2 * mean(plain, 4)  # type: ignore[arg-type]
    assert mean(covered, 0) < mean(plain, 0)  # type: ignore[arg-type]
