"""Draws: who trains, who judges, and which judge measures which adapter.

Everything here is a pure function of what was frozen and of the beacon, so that anyone can make a draw again.
A bond counts as tickets, a seat is drawn from the tickets without replacement, and a seat is one vote: drawing by
stake and then voting by stake would count stake twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flockchain.crypto import tagged_hash
from flockchain.types.rows import Assignment, Candidate, Draw, Seats

SEATS_PER_DOMAIN = 3
"""Fewest seats that may judge a domain: two of three agree, and one may be absent."""
SMALL_ROUND_ADAPTERS = 8
"""Up to so many adapters every judge measures every adapter."""
SEATS_PER_ADAPTER = 9
"""With more adapters each goes to judges with at least so many seats together."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A drawn committee member; `domains` are the indexes that its holdout covered when the draw was frozen."""

    address: bytes
    seats: int
    domains: tuple[int, ...]


def compute_tickets(bond_uflk: int, min_bond_uflk: int, max_tickets: int) -> int:
    """Chances of a bond in a draw: whole minimum bonds, capped per account."""
    return min(bond_uflk // min_bond_uflk, max_tickets)


def is_seatable(candidates: Sequence[Candidate], seats: int, account_seats: int, domains: int) -> bool:
    """Whether the candidates can fill `seats`, and three seats of every domain, at `account_seats` each."""

    def count_seats(able: Iterable[Candidate]) -> int:
        return sum(min(candidate.tickets, account_seats) for candidate in able)

    return count_seats(candidates) >= seats and all(
        count_seats(candidate for candidate in candidates if domain in candidate.domains) >= SEATS_PER_DOMAIN
        for domain in range(domains)
    )


def compute_draw(draw: Draw, beacon: bytes, *, domains: int, max_attempts: int) -> tuple[int, tuple[Seats, ...]]:
    """(attempts made, drawn seats sorted by address) of the frozen `draw`.

    A draw that leaves one of `domains` with fewer than three covering seats is made again with the next attempt
    number in the hash. If none of `max_attempts` covers all, the first of those that cover most stands, and the
    domains it misses are unjudged in this round.
    """
    best: tuple[int, tuple[Seats, ...]] = (-1, ())
    for attempt in range(max_attempts):
        drawn = _draw_once(draw, beacon, attempt)
        judges = get_judges(draw, drawn)
        covered = sum(count_covering_seats(judges, domain) >= SEATS_PER_DOMAIN for domain in range(domains))
        if covered > best[0]:
            best = (covered, drawn)
        if covered == domains:
            return attempt + 1, drawn
    return max_attempts, best[1]


def _draw_once(draw: Draw, beacon: bytes, attempt: int) -> tuple[Seats, ...]:
    """Seats from tickets without replacement; an account that holds its most seats takes its other tickets out.

    The remainder of a 256-bit number by a total below 2**20 favours low tickets by less than 2**-236.
    """
    tickets = [candidate.tickets for candidate in draw.candidates]
    seats = [0] * len(tickets)
    total = sum(tickets)
    for index in range(draw.seats):
        if total == 0:
            break
        number = _hash_number("draw", draw.role, draw.task, draw.round, beacon, attempt, index) % total
        winner = 0
        while number >= tickets[winner]:
            number -= tickets[winner]
            winner += 1
        seats[winner] += 1
        taken = 1 if seats[winner] < draw.account_seats else tickets[winner]
        tickets[winner] -= taken
        total -= taken
    pairs = zip(draw.candidates, seats, strict=True)
    return tuple(Seats(candidate.address, count) for candidate, count in pairs if count)


def get_judges(draw: Draw, drawn: Sequence[Seats] | None = None) -> tuple[Judge, ...]:
    """The committee of a draw with the domains that each member covers, sorted by address."""
    domains = {candidate.address: candidate.domains for candidate in draw.candidates}
    return tuple(
        Judge(member.address, member.seats, domains[member.address])
        for member in (draw.drawn if drawn is None else drawn)
    )


def count_covering_seats(judges: Iterable[Judge], domain: int) -> int:
    return sum(judge.seats for judge in judges if domain in judge.domains)


def compute_assignments(
    draw: Draw, judges: Sequence[Judge], roots: Sequence[bytes], domains: int
) -> tuple[Assignment, ...]:
    """Which judge measures which of the sorted `roots`.

    Up to eight adapters: everyone measures all. With more, each adapter goes to judges with at least nine seats
    together and, where the committee can, three seats per domain. The judge with the least to do comes first, ties
    by a hash of the committee's beacon, which no trainer knew when it committed its root.
    """
    if len(roots) <= SMALL_ROUND_ADAPTERS:
        return tuple(Assignment(judge.address, tuple(roots)) for judge in judges)
    assigned: dict[bytes, list[bytes]] = {judge.address: [] for judge in judges}
    for root in roots:
        order = sorted(
            judges,
            key=lambda judge: (
                len(assigned[judge.address]),
                tagged_hash(
                    "flockchain/assignment", (*_place(draw.task, draw.round), draw.beacon, root, judge.address)
                ),
            ),
        )
        for judge in _choose_panel(order, domains):
            assigned[judge.address].append(root)
    return tuple(Assignment(judge.address, tuple(assigned[judge.address])) for judge in judges)


def _choose_panel(order: Sequence[Judge], domains: int) -> list[Judge]:
    """The first judges of `order` who add seats that are still wanted, overall or in a domain."""
    panel: list[Judge] = []
    for judge in order:
        lacks_seats = sum(member.seats for member in panel) < SEATS_PER_ADAPTER
        lacks_domain = any(
            count_covering_seats(panel, domain) < SEATS_PER_DOMAIN and domain in judge.domains
            for domain in range(domains)
        )
        if lacks_seats or lacks_domain:
            panel.append(judge)
    return panel


def compute_adapter_load(adapters: int, seats: int) -> int:
    """Adapters that a judge must be able to measure in one round, for the budget of `create-task`.

    With a panel an account sits, on average over equal accounts, in at most (9 + seats // 3) / seats of them.
    """
    if adapters <= SMALL_ROUND_ADAPTERS:
        return adapters
    panel_seats = min(seats, SEATS_PER_ADAPTER + seats // 3)
    return min(adapters, max(SMALL_ROUND_ADAPTERS, -(-adapters * panel_seats // seats) + 1))


def _hash_number(purpose: str, role: str, task: int, round: int, beacon: bytes, attempt: int, index: int) -> int:
    parts = (*_place(task, round), beacon, attempt.to_bytes(8, "big"), index.to_bytes(8, "big"))
    return int.from_bytes(tagged_hash(f"flockchain/{purpose}/{role}", parts), "big")


def _place(task: int, round: int) -> tuple[bytes, bytes]:
    return task.to_bytes(8, "big"), round.to_bytes(8, "big")
