"""The chain's file, opened to be read while its node runs or rests; never blocks the writer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from sqlalchemy import Connection

from flockchain.store.connection import faults, open_reader
from flockchain.store.migrations import check_current

S = TypeVar("S")


class ReadOnlyFile(Generic[S]):
    """Hands out snapshots of one kind; raises `Fault` when the file is absent, damaged or of another version."""

    def __init__(self, path: Path, make_snapshot: Callable[[Connection], S]) -> None:
        self._path = path.absolute()
        self._make_snapshot = make_snapshot
        with faults(self._path):
            self._engine = open_reader(self._path)
            try:
                with self._engine.begin() as connection:
                    check_current(connection, self._path)
            except BaseException:
                self._engine.dispose()
                raise

    @contextmanager
    def snapshot(self) -> Iterator[S]:
        """The chain as of now, unchanged while the block lasts."""
        with faults(self._path), self._engine.begin() as connection:
            yield self._make_snapshot(connection)

    def close(self) -> None:
        self._engine.dispose()
