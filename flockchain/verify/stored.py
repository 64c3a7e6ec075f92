"""How stored records differ from recomputed ones, as sentences."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flockchain.crypto import ADDRESS_BYTES, format_address
from flockchain.errors import FlockchainError
from flockchain.store.reading import decode_row
from flockchain.store.records import RecordRow, name_columns
from flockchain.types.rows import TABLES

_SHOWN_FIELDS = 3
_SHOWN_CHARACTERS = 60


def compare_records(table: str, singular: str, stored: Sequence[RecordRow], expected: Sequence[RecordRow]) -> list[str]:
    """Differences between one block's records of `table`, in the order of their ids."""
    columns = name_columns(table)
    found = []
    by_id = {row[0]: row for row in stored}
    for position, wanted in enumerate(expected):
        row = by_id.pop(wanted[0], None)
        name = singular if len(expected) == 1 and table == "blocks" else f"{singular} {position}"
        if row is None:
            found.append(f"{name} is missing")
        elif row != wanted:
            found.append(f"{name}: {_describe(columns, row, wanted)}")
    found += [f"a {singular} that no block made (id {record_id})" for record_id in by_id]
    return found


def compare_state_rows(stored: Iterable[RecordRow], expected: Iterable[RecordRow]) -> Iterator[str]:
    """Differences between two streams of (key, ref, value), both in key order."""
    left, right = iter(stored), iter(expected)
    row, wanted = next(left, None), next(right, None)
    while row is not None or wanted is not None:
        if wanted is None or (row is not None and row[0] < wanted[0]):
            assert row is not None
            yield f"{name_state_row(row[0])} is stored and follows from no block"
            row = next(left, None)
        elif row is None or wanted[0] < row[0]:
            yield f"{name_state_row(wanted[0])} is missing"
            wanted = next(right, None)
        else:
            if row != wanted:
                yield f"{name_state_row(row[0])}: {_describe_state(row, wanted)}"
            row, wanted = next(left, None), next(right, None)


def name_state_row(key: bytes) -> str:
    """A state row for people: its table and its key, accounts by their address."""
    table = next((table for table in TABLES.values() if key[:1] == bytes([table.tag])), None)
    if table is None:
        return f"state row {key.hex()}"
    rest = key[1:]
    shown = format_address(rest) if len(rest) == ADDRESS_BYTES else rest.hex()
    return f"state row {table.name} {shown}".rstrip()


def _describe_state(row: RecordRow, wanted: RecordRow) -> str:
    """The fields that differ; the bytes where the stored ones are no row at all."""
    try:
        found, right = decode_row(row[0], row[2]), decode_row(wanted[0], wanted[2])
    except (FlockchainError, TypeError) as error:
        return f"its bytes are damaged ({error})"
    if found == right:
        return _describe(["key", "ref", "value"], row, wanted)
    fields = right.__struct_fields__
    return _describe(fields, [getattr(found, f) for f in fields], [getattr(right, f) for f in fields])


def _describe(names: Sequence[str], found: Sequence[Any], wanted: Sequence[Any]) -> str:
    differing = [(n, f, w) for n, f, w in zip(names, found, wanted, strict=True) if f != w]
    parts = [f"{name} is {_show(f)}, the replay gives {_show(w)}" for name, f, w in differing[:_SHOWN_FIELDS]]
    if len(differing) > _SHOWN_FIELDS:
        parts.append(f"and {len(differing) - _SHOWN_FIELDS} more")
    return "; ".join(parts)


def _show(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"
