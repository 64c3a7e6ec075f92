"""Exact chances of a draw: weighted tickets without replacement, a cap per account, redraws until domains are covered.

Written from docs/protocol.md alone, by walking every order in which tickets can come out.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import comb, sqrt

Outcome = tuple[int, ...]
"""Seats per account."""


def compute_chances(
    tickets: Sequence[int], seats: int, cap: int, covers: Sequence[frozenset[int]] = (), domains: int = 0
) -> dict[Outcome, Fraction]:
    """Chance of every outcome; with `domains` given that three seats cover each, as redraws make it."""
    chances: dict[Outcome, Fraction] = {}

    def walk(held: Outcome, left: int, chance: Fraction) -> None:
        live = [0 if held[i] >= cap else tickets[i] - held[i] for i in range(len(tickets))]
        total = sum(live)
        if left == 0 or total == 0:
            chances[held] = chances.get(held, Fraction(0)) + chance
            return
        for i, count in enumerate(live):
            if count:
                walk((*held[:i], held[i] + 1, *held[i + 1 :]), left - 1, chance * Fraction(count, total))

    walk((0,) * len(tickets), seats, Fraction(1))
    kept = {held: chance for held, chance in chances.items() if _is_covered(held, covers, domains)}
    whole = sum(kept.values(), Fraction(0))
    return {held: chance / whole for held, chance in kept.items()}


def _is_covered(held: Outcome, covers: Sequence[frozenset[int]], domains: int) -> bool:
    return all(
        sum(seats for seats, covered in zip(held, covers, strict=True) if domain in covered) >= 3
        for domain in range(domains)
    )


def compute_tail(tickets: int, own: int, seats: int, at_least: int) -> float:
    """Chance that `own` of `tickets` win at least so many of the seats, without a cap: hypergeometric."""
    ways = sum(comb(own, k) * comb(tickets - own, seats - k) for k in range(at_least, min(own, seats) + 1))
    return ways / comb(tickets, seats)


def compute_chi_square(counts: Mapping[Outcome, int], chances: Mapping[Outcome, Fraction]) -> tuple[float, float]:
    """(statistic, the value that chance alone exceeds once in 10,000 runs). Outcomes expected under 5 times are one.

    The bound is Wilson and Hilferty's (1931): the cube root of chi-square over its degrees is nearly normal.
    """
    assert set(counts) <= set(chances), "an outcome came out that cannot"
    total = sum(counts.values())
    cells = [(counts.get(held, 0), float(total * chance)) for held, chance in chances.items()]
    rare = [cell for cell in cells if cell[1] < 5]
    common = [cell for cell in cells if cell[1] >= 5]
    if rare:
        common.append((sum(cell[0] for cell in rare), sum(cell[1] for cell in rare)))
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in common)
    degrees, z = len(common) - 1, 3.72
    return statistic, degrees * (1 - 2 / (9 * degrees) + z * sqrt(2 / (9 * degrees))) ** 3
