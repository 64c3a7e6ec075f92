"""What consensus decides about: the interface to an application, and a toy that is strict about order."""

from hashlib import sha256
from typing import Protocol


class App(Protocol):
    """One replica's application. A decided block is applied at once; heights begin at 1."""

    def build(self, height: int, round: int) -> bytes:
        """A valid value for the next height, never the same twice."""

    def validate(self, height: int, value: bytes) -> bool:
        """Whether the value may follow what was decided so far."""

    def decide(self, height: int, value: bytes) -> None:
        """Apply the value of the next height."""

    def state_root(self, height: int) -> bytes:
        """Digest of the state after a decided height; height 0 is genesis."""


class ToyApp:
    """A hash chain: a value is valid only on top of exactly the state it was built on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._built = 0
        self._roots = [bytes(32)]

    def build(self, height: int, round: int) -> bytes:
        assert height == len(self._roots), "a value is built on the state of the height before"
        self._built += 1
        return b"|".join(
            (b"%d" % height, self._roots[-1].hex().encode(), f"{self._name}.{round}.{self._built}".encode())
        )

    def validate(self, height: int, value: bytes) -> bool:
        parts = value.split(b"|")
        return len(parts) == 3 and parts[0] == b"%d" % height and parts[1] == self._roots[height - 1].hex().encode()

    def decide(self, height: int, value: bytes) -> None:
        assert self.validate(height, value), "an invalid value was decided"
        assert height == len(self._roots)
        self._roots.append(sha256(self._roots[-1] + value).digest())

    def state_root(self, height: int) -> bytes:
        return self._roots[height]
