"""`q4`: multiples of 2^shift steps from -7 to 7, two in a byte, the first in the low half; each stored plus 8.

With the usual update step, K * lr / 127 rounded up to a power of two, a shift of 3 ends at 56 steps, about half of what
K steps of Adam could move at most: few values get there, and what is cut off comes with the next round.
"""

from dataclasses import dataclass

import numpy as np

from ml.canonical import Array
from ml.transport import round_to

LIMIT = 7
OFFSET = 8
"""Nibbles are 1 to 15; 0 never occurs but as the filler of an odd count."""


@dataclass(frozen=True)
class Q4:
    shift: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.shift <= 4:
            raise ValueError(f"a shift of {self.shift} leaves int8: choose 0 to 4")

    def project(self, steps: Array) -> Array:
        return round_to(steps / 2**self.shift, LIMIT) << self.shift

    def pack(self, values: Array) -> bytes:
        coarse = values >> self.shift
        assert values.dtype == np.int8
        assert np.array_equal(coarse << self.shift, values)
        return pack_nibbles(coarse)

    def unpack(self, data: bytes, count: int) -> Array:
        return unpack_nibbles(data, count) << self.shift


def pack_nibbles(values: Array) -> bytes:
    """int8 (n,) from -7 to 7 -> ceil(n / 2) bytes."""
    assert values.size == 0 or int(np.abs(values).max()) <= LIMIT
    nibbles = (values + OFFSET).astype(np.uint8)
    nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
    return (nibbles[0::2] | nibbles[1::2] << 4).tobytes()


def unpack_nibbles(data: bytes, count: int) -> Array:
    """The inverse. Raises ValueError for another length, a 0 among the values or a filler that is none."""
    if len(data) != -(-count // 2):
        raise ValueError(f"{count} values of 4 bits need {-(-count // 2)} bytes, not {len(data)}")
    pairs = np.frombuffer(data, np.uint8)
    nibbles = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
    if not nibbles[:count].all() or nibbles[count:].any():
        raise ValueError("a value of 4 bits is out of -7 to 7, or the filler is not zero")
    values: Array = nibbles[:count].astype(np.int8) - np.int8(OFFSET)
    return values
