"""The one canonical encoding: MessagePack arrays of frozen structs.

msgspec accepts wide integers and long headers where short ones would do, so `decode` encodes again and
compares: any second form of a message is refused, and a hash names exactly one value.
"""

from typing import Any, TypeVar

import msgspec

from flockchain.errors import Malformed

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, "msgspec.msgpack.Decoder[Any]"] = {}


class Canonical(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every struct that is hashed, signed or stored. Fields are positional on the wire."""


def encode(value: object) -> bytes:
    """Canonical bytes of a `Canonical` struct or of a list, tuple, int, str or bytes."""
    return _encoder.encode(value)


def decode(kind: type[T], data: bytes) -> T:
    """The value of type `kind` whose canonical bytes are `data`; raises `Malformed` for anything else."""
    try:
        value: T = _decoder(kind).decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{kind.__name__}: {error}") from None
    if _encoder.encode(value) != data:
        raise Malformed(f"{kind.__name__}: bytes are valid MessagePack but not in canonical form")
    return value


def _decoder(kind: type) -> "msgspec.msgpack.Decoder[Any]":
    if kind not in _decoders:
        _decoders[kind] = msgspec.msgpack.Decoder(kind)
    return _decoders[kind]
