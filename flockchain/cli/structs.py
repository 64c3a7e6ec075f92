"""Structs of the chain from files that people write: JSON or TOML with the field names that REST shows.

Hashes in hex, addresses as flk1..., amounts as numbers or with a unit. What is wrong is named with its line.
"""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from flockchain.cli.fields import find_line, read_amount, read_document
from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import parse_address
from flockchain.errors import Refused
from flockchain.types.ids import Address

S = TypeVar("S", bound=Canonical)


def read_struct(path: Path, kind: type[S], defaults: Mapping[str, Any] | None = None) -> S:
    """The struct in a file; `defaults` fill dotted fields that it leaves out. Raises `Refused`."""
    document, text = read_document(path)
    if not isinstance(document, dict):
        raise Refused("bad-file", f"{path}: must hold an object with {', '.join(kind.__struct_fields__)}")
    for dotted, value in (defaults or {}).items():
        *parents, name = dotted.split(".")
        inner: Any = document
        for parent in parents:
            inner = inner.get(parent) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.setdefault(name, value)
    try:
        value = _convert(kind, document, "")
        return decode(kind, encode(value))
    except _Wrong as wrong:
        line = find_line(text, wrong.field.rpartition(".")[2])
        raise Refused("bad-file", f"{path} line {line}: {wrong.field or kind.__name__}: {wrong.why}") from None
    except (Refused, OverflowError, TypeError) as error:
        raise Refused("bad-file", f"{path}: {error}") from None


class _Wrong(Exception):
    def __init__(self, field: str, why: str) -> None:
        self.field = field
        self.why = why


def _convert(hint: Any, value: Any, where: str) -> Any:
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(base) is Literal:
        if value not in get_args(base):
            raise _Wrong(where, f"{value!r} is none of {', '.join(map(repr, get_args(base)))}")
        return value
    if get_origin(base) is tuple:
        if not isinstance(value, list):
            raise _Wrong(where, f"must be a list, got {value!r}")
        return tuple(_convert(get_args(base)[0], item, where) for item in value)
    if isinstance(base, UnionType):
        some = next(kind for kind in get_args(base) if kind is not NoneType)
        return None if value is None else _convert(some, value, where)
    if base is bytes:
        return _convert_bytes(hint, value, where)
    if isinstance(base, type) and issubclass(base, msgspec.Struct):
        return _convert_struct(base, value, where)
    if base is int:
        return _check_range(hint, _convert_int(value, where), where)
    if base is bool and not isinstance(value, bool):
        raise _Wrong(where, f"must be true or false, got {value!r}")
    if base is str and not isinstance(value, str):
        raise _Wrong(where, f"must be text, got {value!r}")
    return _check_range(hint, value, where)


def _convert_struct(kind: type[msgspec.Struct], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _Wrong(where, f"must be an object with {', '.join(kind.__struct_fields__)}")
    fields = msgspec.structs.fields(kind)
    for name in value:
        if name not in kind.__struct_fields__:
            raise _Wrong(_join(where, str(name)), f"unknown field; there are: {', '.join(kind.__struct_fields__)}")
    for field in fields:
        if field.required and field.name not in value:
            raise _Wrong(_join(where, field.name), "is missing")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{name: _convert(hints[name], item, _join(where, name)) for name, item in value.items()})


def _convert_int(value: Any, where: str) -> int:
    try:
        return read_amount(where.rpartition(".")[2], value)
    except Refused as refusal:
        raise _Wrong(where, refusal.message.partition(": ")[2]) from None


def _convert_bytes(hint: Any, value: Any, where: str) -> bytes:
    if value is None or value == "":
        data = b""
    elif not isinstance(value, str):
        raise _Wrong(where, f"must be text in hex, got {value!r}")
    elif hint == Address:
        try:
            return parse_address(value)
        except Refused as refusal:
            raise _Wrong(where, refusal.message) from None
    else:
        try:
            data = bytes.fromhex(value)
        except ValueError:
            raise _Wrong(where, f"{value[:80]!r} is not hex") from None
    checked: bytes = _check_range(hint, data, where)
    return checked


def _check_range(hint: Any, value: Any, where: str) -> Any:
    """The limits that a field is declared with."""
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise _Wrong(where, str(error)) from None


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
