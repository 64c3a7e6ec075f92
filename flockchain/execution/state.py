"""All rows of the ledger in memory, with a journal.

A transaction that is refused half-way is undone by its savepoint; a block leaves its write set, which the store
persists and the state tree hashes.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar, cast

from sortedcontainers import SortedDict

from flockchain.types.rows import Row, compute_key, row_key

R = TypeVar("R", bound=Row)


class State:
    """Rows by key. Reads return frozen rows; the only writes are `put` and `delete`."""

    root: bytes = b""
    """State root after the last executed block: of these rows while the journal is empty."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: SortedDict[bytes, Row] = SortedDict((row_key(row), row) for row in rows)
        self._journal: list[tuple[bytes, Row | None]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, kind: type[R], *key: bytes | int | str) -> R | None:
        """The row with this key, or None."""
        return cast("R | None", self._rows.get(compute_key(kind, *key)))

    def get(self, kind: type[R], *key: bytes | int | str) -> R:
        """The row with this key, which we know to exist."""
        row = self.find(kind, *key)
        assert row is not None, f"no {kind.__name__} with key {key}"
        return row

    def at(self, key: bytes) -> Row | None:
        """The row under this state key, or None."""
        return self._rows.get(key)

    def iterate(self, kind: type[R], *prefix: bytes | int | str) -> Iterator[R]:
        """Rows of one kind whose key begins with `prefix`, in key order; safe against writes meanwhile."""
        start = compute_key(kind, *prefix)
        yield from cast("Iterator[R]", self._iterate(start, _key_after(start)))

    def iterate_from(self, kind: type[R], *key: bytes | int | str) -> Iterator[R]:
        """Rows from `key` on, in key order, whose key begins as `key` does but for its last part."""
        yield from cast("Iterator[R]", self._iterate(compute_key(kind, *key), _key_after(compute_key(kind, *key[:-1]))))

    def _iterate(self, start: bytes, end: bytes) -> Iterator[Row]:
        for key in list(self._rows.irange(start, end, inclusive=(True, False))):
            row = self._rows.get(key)
            if row is not None:
                yield row

    def first(self, kind: type[R], *prefix: bytes | int | str) -> R | None:
        """The first row of one kind under `prefix` in key order, or None."""
        start = compute_key(kind, *prefix)
        for key in self._rows.irange(start, _key_after(start), inclusive=(True, False)):
            return cast(R, self._rows[key])
        return None

    def last_until(self, kind: type[R], *key: bytes | int | str) -> R | None:
        """The last row of one kind whose key is at most `key`, or None."""
        for name in self._rows.irange(compute_key(kind), compute_key(kind, *key), reverse=True):
            return cast(R, self._rows[name])
        return None

    def put(self, row: Row) -> None:
        """Insert a row, or replace the one with its key."""
        key = row_key(row)
        old = self._rows.get(key)
        if old != row:
            self._journal.append((key, old))
            self._rows[key] = row

    def delete(self, kind: type[Row], *key: bytes | int | str) -> None:
        """Remove a row, which we know to exist."""
        name = compute_key(kind, *key)
        self._journal.append((name, self._rows[name]))
        del self._rows[name]

    def rows(self) -> Iterator[Row]:
        """Every row in key order."""
        return iter(self._rows.values())

    def items(self) -> Iterator[tuple[bytes, Row]]:
        """Every state key with its row, in key order."""
        return iter(self._rows.items())

    def savepoint(self) -> int:
        """A mark to which `rollback` returns."""
        return len(self._journal)

    def rollback(self, savepoint: int) -> None:
        """Undo every write since `savepoint`."""
        assert savepoint <= len(self._journal)
        while len(self._journal) > savepoint:
            key, old = self._journal.pop()
            if old is None:
                del self._rows[key]
            else:
                self._rows[key] = old

    def peek_write_set(self) -> Mapping[bytes, Row | None]:
        """Rows changed since the last `clear_journal`, by key in key order; None: deleted."""
        return {key: self._rows.get(key) for key in sorted({key for key, _ in self._journal})}

    def peek_changes(self) -> list[tuple[bytes, Row | None, Row | None]]:
        """(key, row before, row now) of every key written since the last `clear_journal`, in key order."""
        before: dict[bytes, Row | None] = {}
        for key, old in self._journal:
            before.setdefault(key, old)
        return [(key, before[key], self._rows.get(key)) for key in sorted(before)]

    def clear_journal(self) -> None:
        """Forget how to undo: the block is decided and persisted."""
        self._journal.clear()


def _key_after(prefix: bytes) -> bytes:
    """The smallest key greater than every key that begins with `prefix`. Tags are below 255."""
    number = int.from_bytes(prefix, "big") + 1
    return number.to_bytes(len(prefix), "big")
