"""Seeded choices that are the same in every version of Python.

Only `Random.getrandbits` and seeding with an integer are used: how `choice`, `shuffle`, `sample` and `randint` make a
choice of the stream may change between versions (docs.python.org/3/library/random.html, notes on reproducibility).
"""

from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """One stream of choices, named by what it is for."""

    def __init__(self, *name: object) -> None:
        seed = sha256("/".join(map(str, name)).encode()).digest()
        self._bits = Random(int.from_bytes(seed, "big")).getrandbits

    def below(self, end: int) -> int:
        """0 <= number < end."""
        assert end > 0
        size = end.bit_length()
        while (number := self._bits(size)) >= end:
            pass
        return number

    def between(self, least: int, most: int) -> int:
        """least <= number <= most."""
        return least + self.below(most - least + 1)

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Fisher and Yates."""
        left = list(items)
        for last in range(len(left) - 1, 0, -1):
            other = self.below(last + 1)
            left[last], left[other] = left[other], left[last]
        return left

    def some(self, items: Sequence[T], percent: int) -> list[T]:
        """Each item with this chance."""
        return [item for item in items if self.chance(percent)]

    def data(self, size: int) -> bytes:
        return self._bits(8 * size).to_bytes(size, "big") if size else b""
