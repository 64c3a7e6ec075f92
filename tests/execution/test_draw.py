"""Draws: exact chances on enumerated small cases, caps, coverage, panels for many adapters."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations

import pytest

from flockchain.crypto import sha256
from flockchain.execution.draw import (
    Judge,
    compute_adapter_load,
    compute_assignments,
    compute_draw,
    compute_tickets,
    count_covering_seats,
    get_judges,
    is_seatable,
)
from flockchain.types.rows import Candidate, Draw, Seats

DRAWS = 4_000


def address(index: int) -> bytes:
    return bytes([index + 1]) * 20


def make_draw(
    tickets: list[int], seats: int, account_seats: int, domains: list[tuple[int, ...]] | None = None, round: int = 1
) -> Draw:
    covered = domains or [()] * len(tickets)
    candidates = tuple(Candidate(address(i), count * 10, count, covered[i]) for i, count in enumerate(tickets))
    return Draw(1, round, "voter" if domains else "trainer", 2, seats, account_seats, candidates, b"", 0, ())


def beacons(count: int) -> Iterator[bytes]:
    return (sha256(b"draw test", i.to_bytes(8, "big")) for i in range(count))


def compute_exact_seats(tickets: list[int], seats: int, cap: int) -> list[Fraction]:
    """Expected seats per account, by walking every order in which tickets can come out."""
    expected = [Fraction(0)] * len(tickets)

    def walk(held: tuple[int, ...], left: int, chance: Fraction) -> None:
        live = [0 if held[i] >= cap else tickets[i] - held[i] for i in range(len(tickets))]
        if left == 0 or sum(live) == 0:
            for i, count in enumerate(held):
                expected[i] += chance * count
            return
        for i, count in enumerate(live):
            if count:
                after = tuple(h + (j == i) for j, h in enumerate(held))
                walk(after, left - 1, chance * Fraction(count, sum(live)))

    walk((0,) * len(tickets), seats, Fraction(1))
    return expected


@pytest.mark.parametrize(
    ("tickets", "seats", "cap"),
    [([1, 2, 3, 4], 2, 1), ([5, 1, 1], 3, 2), ([2, 2, 8, 1], 6, 2), ([1, 1, 1, 1, 1], 3, 1)],
)
def test_seats_come_as_often_as_their_exact_chance(tickets: list[int], seats: int, cap: int) -> None:
    exact = compute_exact_seats(tickets, seats, cap)
    counts = [0] * len(tickets)
    for beacon in beacons(DRAWS):
        _, drawn = compute_draw(make_draw(tickets, seats, cap), beacon, domains=0, max_attempts=1)
        for member in drawn:
            counts[member.address[0] - 1] += member.seats
    for count, chance in zip(counts, exact, strict=True):
        # Seats of an account have a variance of at most cap**2 / 4 a draw: four standard errors.
        assert abs(count - DRAWS * chance) <= 4 * cap * (DRAWS**0.5) / 2, (counts, [float(e * DRAWS) for e in exact])


def test_more_tickets_than_seats_leave_nobody_twice_above_the_cap() -> None:
    for beacon in beacons(200):
        _, drawn = compute_draw(make_draw([100, 100, 3, 3, 3], 9, 3), beacon, domains=0, max_attempts=1)
        assert sum(member.seats for member in drawn) == 9
        assert all(member.seats <= 3 for member in drawn)
        assert [member.address for member in drawn] == sorted(member.address for member in drawn)


def test_a_draw_depends_on_beacon_round_and_role_and_on_nothing_else() -> None:
    beacon = sha256(b"b")
    base = make_draw([1] * 40, 20, 1)
    first = compute_draw(base, beacon, domains=0, max_attempts=1)
    assert compute_draw(base, beacon, domains=0, max_attempts=1) == first
    assert compute_draw(base, sha256(b"c"), domains=0, max_attempts=1) != first
    assert compute_draw(make_draw([1] * 40, 20, 1, round=2), beacon, domains=0, max_attempts=1) != first


def test_a_draw_is_pinned() -> None:
    """Golden: changing the derivation is a change of the protocol."""
    _, drawn = compute_draw(make_draw([4, 3, 2, 1], 4, 2), sha256(b"golden"), domains=0, max_attempts=1)
    assert drawn == GOLDEN


def test_a_committee_is_drawn_again_until_three_seats_cover_each_domain() -> None:
    covers: list[tuple[int, ...]] = [(0,)] * 12 + [(0, 1)] * 4
    draw = make_draw([1] * 16, 6, 2, covers)
    repeated = 0
    for beacon in beacons(100):
        attempts, drawn = compute_draw(draw, beacon, domains=2, max_attempts=64)
        assert count_covering_seats(get_judges(draw, drawn), 1) >= 3
        repeated += attempts > 1
    assert repeated > 50


def test_when_no_attempt_covers_all_the_best_one_stands() -> None:
    covers: list[tuple[int, ...]] = [(0,)] * 9 + [(1,)] * 2
    draw = make_draw([1] * 11, 3, 1, covers)
    attempts, drawn = compute_draw(draw, sha256(b"x"), domains=2, max_attempts=16)
    assert attempts == 16
    assert count_covering_seats(get_judges(draw, drawn), 0) == 3


@pytest.mark.parametrize(
    ("tickets", "seats", "cap", "seatable"),
    [([5, 5, 5], 3, 1, True), ([9, 9], 3, 1, False), ([3, 3, 3], 9, 3, True), ([3, 3, 2], 9, 3, False)],
)
def test_a_committee_needs_tickets_for_every_seat_under_the_cap(
    tickets: list[int], seats: int, cap: int, seatable: bool
) -> None:
    assert is_seatable(make_draw(tickets, seats, cap, [(0,)] * len(tickets)).candidates, seats, cap, 1) is seatable


def test_a_committee_needs_three_seats_of_every_domain() -> None:
    candidates = make_draw([1] * 5, 3, 1, [(0, 1), (0, 1), (0,), (0,), (0,)]).candidates
    assert is_seatable(candidates, 3, 1, 1)
    assert not is_seatable(candidates, 3, 1, 2)


def test_tickets_are_whole_minimum_bonds_and_capped() -> None:
    assert [compute_tickets(bond, 10, 5) for bond in (0, 9, 10, 29, 1000)] == [0, 0, 1, 2, 5]


def make_committee(seats: list[int], domains: list[tuple[int, ...]]) -> tuple[Draw, tuple[Judge, ...]]:
    draw = make_draw(seats, sum(seats), max(seats), domains)
    return draw, get_judges(draw, [Seats(address(i), count) for i, count in enumerate(seats)])


def test_up_to_eight_adapters_go_to_every_judge() -> None:
    draw, judges = make_committee([1] * 21, [(0,)] * 21)
    roots = sorted(sha256(bytes([i])) for i in range(8))
    assert all(a.roots == tuple(roots) for a in compute_assignments(draw, judges, roots, 1))


@pytest.mark.parametrize("seats", [[1] * 21, [7, 7, 7], [2] * 12, [1] * 3])
def test_many_adapters_go_to_panels_that_cover_each_domain_within_the_budget(seats: list[int]) -> None:
    covers = [((0, 1), (0,), (1,))[i % 3] for i in range(len(seats))] if len(seats) > 3 else [(0, 1)] * 3
    draw, judges = make_committee(seats, covers)
    roots = sorted(sha256(bytes([i])) for i in range(40))
    assignments = compute_assignments(draw, judges, roots, 2)
    assert [a.voter for a in assignments] == [judge.address for judge in judges]
    for root in roots:
        panel = [judge for judge, a in zip(judges, assignments, strict=True) if root in a.roots]
        assert sum(judge.seats for judge in panel) >= min(9, sum(seats))
        assert all(count_covering_seats(panel, domain) >= 3 for domain in range(2))
    assert max(len(a.roots) for a in assignments) <= compute_adapter_load(40, sum(seats))


def test_panels_differ_between_adapters() -> None:
    draw, judges = make_committee([1] * 21, [(0,)] * 21)
    roots = sorted(sha256(bytes([i])) for i in range(12))
    assignments = compute_assignments(draw, judges, roots, 1)
    panels = [frozenset(a.voter for a in assignments if root in a.roots) for root in roots]
    assert any(a != b for a, b in combinations(panels, 2))
    assert max(len(a.roots) for a in assignments) - min(len(a.roots) for a in assignments) <= 1


def test_a_proposer_that_may_skip_its_block_gains_one_more_draw_and_no_more() -> None:
    """It sees two beacons and takes the one it likes: 1 - (1 - p)**2 for a seat of chance p, the documented bias."""
    draw, mine, chance = make_draw([1, 1, 1, 1, 1], 1, 1), address(0), 1 / 5

    def is_drawn(beacon: bytes) -> bool:
        return any(member.address == mine for member in compute_draw(draw, beacon, domains=0, max_attempts=1)[1])

    pairs = list(beacons(2 * DRAWS))
    won = sum(is_drawn(first) or is_drawn(second) for first, second in zip(pairs[::2], pairs[1::2], strict=True))
    bound = 1 - (1 - chance) ** 2
    assert abs(won - DRAWS * bound) <= 4 * (DRAWS * bound * (1 - bound)) ** 0.5


GOLDEN = (Seats(address(0), 2), Seats(address(2), 1), Seats(address(3), 1))
