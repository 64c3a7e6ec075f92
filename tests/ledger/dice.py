"""Choices for the rules. They come from a seed, the same on every Python, or from hypothesis, which shrinks them."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """`draw(n)` gives an integer in 0..n-1; lower ones stand for simpler choices."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw

    def below(self, count: int) -> int:
        return self._draw(count) if count > 1 else 0

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def is_one_in(self, count: int) -> bool:
        """True once in `count` throws; the lowest throw is False."""
        return self.below(count) == count - 1


def make_seeded(seed: int) -> Dice:
    """sha256 in counter mode: no Python version can change it. Remainders of 64 bits are as good as even here."""
    counter = 0

    def draw(count: int) -> int:
        nonlocal counter
        counter += 1
        digest = hashlib.sha256(f"ledger dice {seed} {counter}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % count

    return Dice(draw)
