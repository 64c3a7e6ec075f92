"""Integer statistics over seats, and how their figures are written for people."""

from collections.abc import Iterable, Sequence

QUORUM_NUMERATOR = 2
QUORUM_DENOMINATOR = 3


def is_quorum(seats: int, of_seats: int) -> bool:
    """Whether at least two thirds of a positive number of seats agree."""
    return of_seats > 0 and QUORUM_DENOMINATOR * seats >= QUORUM_NUMERATOR * of_seats


def is_majority(seats: int, of_seats: int) -> bool:
    """Whether more than half of a number of seats agree: enough to leave something out, which takes from nobody."""
    return 2 * seats > of_seats


def compute_lower_median(values: Sequence[int]) -> int:
    """The value in the middle of the sorted values, the lower of the two in the middle when their number is even."""
    assert values
    return sorted(values)[(len(values) - 1) // 2]


def repeat_by_seats(pairs: Iterable[tuple[int, int]]) -> list[int]:
    """One value per seat from (value, seats) pairs."""
    return [value for value, seats in pairs for _ in range(seats)]


def is_above(change_ppm: int, se_ppm: int, limit_ppm: int, z_milli: int) -> bool:
    """Whether the lower confidence bound of a change lies above `limit_ppm` (harm)."""
    return change_ppm * 1000 - z_milli * se_ppm > limit_ppm * 1000


def is_below_zero(change_ppm: int, se_ppm: int, z_milli: int) -> bool:
    """Whether the upper confidence bound of a change lies below zero (help)."""
    return change_ppm * 1000 + z_milli * se_ppm < 0


def format_percent(value_ppm: int) -> str:
    """``+12.3 %``: one decimal, halves away from zero."""
    tenths = (abs(value_ppm) + 500) // 1000
    sign = "-" if value_ppm < 0 and tenths else "+"
    return f"{sign}{tenths // 10}.{tenths % 10} %"


def clip_text(text: str, limit: int = 256) -> str:
    """`text` within the length of a row's text field."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
