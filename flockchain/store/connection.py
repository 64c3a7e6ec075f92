"""How this project opens SQLite: the writer's settings, the reader's, and errors as sentences."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool, StaticPool

from flockchain.errors import Fault
from flockchain.files import explain

BUSY_TIMEOUT_MS = 2_000
READERS = 4
LOG_BYTES = 16 * 2**20
"""Size from which the write-ahead log is due to be copied into the file, and to which it shrinks afterwards."""
_CACHE_KIB = 32_768
_SYNC = "PRAGMA synchronous=FULL"
_USE_LOG = "PRAGMA journal_mode=WAL"


def open_writer(path: Path) -> Engine:
    """Engine over one connection: WAL journal, an fsync per transaction, checkpoints only when we ask for one."""
    pragmas = (
        f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
        _USE_LOG,
        _SYNC,
        "PRAGMA wal_autocheckpoint=0",
        f"PRAGMA journal_size_limit={LOG_BYTES}",
        f"PRAGMA cache_size=-{_CACHE_KIB}",
    )
    engine = create_engine("sqlite://", creator=_opener(f"{path.as_uri()}?mode=rwc", pragmas), poolclass=StaticPool)
    # The driver must not begin a transaction by itself (it would do so only before the first write).
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def open_reader(path: Path) -> Engine:
    """Engine of read-only connections; a transaction is one snapshot of the file and never blocks the writer."""
    pragmas = (f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}", "PRAGMA query_only=1")
    engine = create_engine(
        "sqlite://",
        creator=_opener(f"{path.as_uri()}?mode=ro", pragmas),
        poolclass=QueuePool,
        pool_size=READERS,
        max_overflow=0,
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _opener(uri: str, pragmas: tuple[str, ...]) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            for pragma in pragmas:
                answer = connection.execute(pragma).fetchone()
                if pragma == _USE_LOG and answer != ("wal",):
                    # SQLite would go on with a rollback journal, whose last commit a power cut may undo.
                    raise sqlite3.OperationalError(f"disk I/O error: {_USE_LOG} was answered {answer}")
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def checkpoint(path: Path, mode: Literal["PASSIVE", "RESTART", "TRUNCATE"]) -> None:
    """Copy the write-ahead log into the file, over a connection of its own (sqlite.org/wal.html#ckpt)."""
    with closing(_opener(f"{path.as_uri()}?mode=rw", (f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",))()) as connection:
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into a `Fault` that says what to do."""
    try:
        yield
    except (DatabaseError, sqlite3.DatabaseError) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        raise Fault(_explain(path, str(cause))) from error
    except OSError as error:
        raise Fault(explain(path, error)) from error


_ERRNO_OF_CAUSE = {
    "disk is full": errno.ENOSPC,
    "disk i/o error": errno.EIO,
    "readonly": errno.EACCES,
    "permission": errno.EACCES,
}
"""What SQLite's messages (sqlite.org/rescode.html) mean to who has to act."""


def _explain(path: Path, cause: str) -> str:
    lower = cause.lower()
    for part, number in _ERRNO_OF_CAUSE.items():
        if part in lower:
            return explain(path, OSError(number, cause))
    if "locked" in lower:
        return f"{path}: another process writes to this file: stop it first"
    if "malformed" in lower or "not a database" in lower or "corrupt" in lower:
        return (
            f"{path}: the file is damaged ({cause}): keep signer_state.json, move the rest of "
            f"{path.parent} away, and start: the node syncs from its peers"
        )
    if "unable to open" in lower:
        return (
            f"{path}: cannot be opened ({cause}): does it exist, and may this user write to its folder? Put it right "
            "and start again"
        )
    return f"{path}: {cause}: whole blocks are kept; put this right, then start again"


class FileLock:
    """An exclusive lock held by this process until it closes or dies, so that a home has one writer."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            if not isinstance(error, BlockingIOError):
                raise
            raise Fault(
                f"{path.parent}: another node runs on this home: stop it first, or choose another home"
            ) from None

    def release(self) -> None:
        os.close(self._file)
