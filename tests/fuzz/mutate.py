"""From true bytes to untrue ones: at the level of bytes, and at the level of what they encode."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

MARKERS = b"\x00\x01\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xc4\xc6\xca\xcf\xd3\xd9\xdb\xdc\xdd\xde\xdf\xe0\xff"
"""MessagePack's type bytes and their neighbours."""
NUMBERS = (0, 1, -1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
MAX_BYTES = 65_536
MAX_DEPTH = 600
"""Nesting beyond what Python's stack would bear, if a decoder recursed."""


def mutate(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One to four mutations of `data`; `others` lend pieces."""
    if rng.random() < 0.4:
        data = _mutate_structure(rng, data)
    for _ in range(rng.randint(0, 3)):
        data = rng.choice(_BYTE_MUTATIONS)(rng, data, others)
    return data[:MAX_BYTES]


def garbage(rng: Random) -> bytes:
    """Bytes of no origin; sometimes a deep nest, or a length that promises gigabytes."""
    kind = rng.random()
    if kind < 0.02:
        return rng.choice((b"\x91", b"\x81\x00", b"\xdd\x00\x00\x00\x01")) * rng.randint(1, MAX_DEPTH)
    if kind < 0.2:
        return rng.choice((b"\xdd", b"\xc6", b"\xdb", b"\xdf")) + rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff")) + b"x"
    return rng.randbytes(rng.choice((0, 1, 2, 8, 64, 512)))


def _flip(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x00"
    at = rng.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]


def _mark(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes((rng.choice(MARKERS),)) + data[at + 1 :]


def _cut(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    first = rng.randrange(len(data) + 1)
    return data[:first] + data[first + rng.randint(1, 16) :]


def _repeat(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    first = rng.randrange(len(data) + 1)
    piece = data[first : first + rng.randint(1, 64)]
    return data[:first] + piece * rng.randint(2, 8) + data[first:]


def _insert(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]


def _splice(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else b""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_BYTE_MUTATIONS = (_flip, _flip, _mark, _mark, _cut, _drop, _repeat, _insert, _splice)


def _mutate_structure(rng: Random, data: bytes) -> bytes:
    """Another value in the same canonical form: what byte flips seldom reach."""
    try:
        return msgspec.msgpack.encode(_mutate_value(rng, msgspec.msgpack.decode(data)))
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError):
        return data


def _mutate_value(rng: Random, value: Any) -> Any:
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], _mutate_value(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, list):
        return rng.choice((value + value, value[:-1], [], value[::-1], [value], value * 40))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, max(0, value - 1), value ^ 1 << rng.randrange(40), rng.choice(NUMBERS)))
    if isinstance(value, bytes):
        return rng.choice((value + b"\x00", value[:-1], rng.randbytes(len(value)), b"", value.decode("latin-1"), 0))
    return rng.choice((None, 0, "", b"", value, [value]))
