"""A disk that fails at the call one names, and forgets what was not synced.

`Disk` stands between the program and the files below one folder: the calls of `os` by which flockchain writes
(`system_calls.py`), and every call of SQLite (`sqlite_vfs.py`). It counts them; the trouble it was given strikes at one
of them. What a power cut leaves follows from fsync(2): the bytes of a file as of its last fsync, under the names as of
the last fsync of its folder. Nothing is really synced here, so thousands of crashes take minutes.
"""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

Kind = Literal["full", "error", "die-before", "die-torn", "die-after"]
KINDS: tuple[Kind, ...] = ("full", "error", "die-before", "die-torn", "die-after")
"""No space from this call on; EIO at this call; the process dies before, in the middle of or right after it."""
Remains = Literal["kept", "half", "lost"]
REMAINS: tuple[Remains, ...] = ("kept", "half", "lost")
"""Of what was not synced: everything (kill -9), the first half of what was added to a file, nothing (power cut)."""
_TAKES_SPACE = frozenset({"write", "create", "mkdir"})
_MAY_TAKE_SPACE = _TAKES_SPACE | {"sync", "rename"}
"""Blocks may be allocated as late as at a sync; a folder may grow."""


class Death(BaseException):
    """The process is gone at this very call: no handler of errors may see it."""


@dataclass(frozen=True, slots=True)
class Trouble:
    at: int
    """Number of the call, from 1."""
    kind: Kind


class Disk:
    """The files below `root`; what lies there at the beginning is on the disk."""

    def __init__(self, root: Path, trouble: Trouble | None = None) -> None:
        self.root = root
        self.trouble = trouble
        self.calls = 0
        self.is_dead = False
        self.is_full = False
        self.struck = ""
        """The call that the trouble met, such as ``write wal``."""
        self._ids = count()
        self._names = {str(path): next(self._ids) for path in root.rglob("*") if path.is_file()}
        """Files as the running system sees them, by path."""
        self._synced = {file: Path(name).read_bytes() for name, file in self._names.items()}
        self._synced_names = dict(self._names)

    # -- what the calls go through ------------------------------------------------------------------------------------

    def call(self, what: str, name: str, perform: Callable[[], Any], tear: Callable[[], Any] | None = None) -> Any:
        """One I/O call, or what the trouble makes of it. `tear` performs the first half of a write."""
        if self.is_dead:
            raise Death
        self.calls += 1
        if self.is_full and what in _TAKES_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        if self.trouble is None or self.calls != self.trouble.at:
            return perform()
        self.struck = f"{what} {name.removeprefix(str(self.root))}"
        if self.trouble.kind == "full" and what not in _MAY_TAKE_SPACE:
            self.is_full = True
            return perform()
        return self._strike(self.trouble.kind, name, perform, tear)

    def _strike(self, kind: Kind, name: str, perform: Callable[[], Any], tear: Callable[[], Any] | None) -> Any:
        if kind == "error":
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        if kind == "full":
            self.is_full = True
            if tear is not None:
                return tear()  # write(2) takes what fits; the next one fails
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        if kind == "die-after":
            opened = perform()
            if hasattr(opened, "close"):
                opened.close()
        elif kind == "die-torn" and tear is not None:
            tear()
        self.is_dead = True
        raise Death

    def covers(self, name: str) -> bool:
        return name.startswith(str(self.root) + os.sep)

    def note_renamed(self, name: str, to: str) -> None:
        self._names[to] = self._names.pop(name)

    def note_created(self, name: str) -> None:
        if name not in self._names:
            self._names[name] = next(self._ids)

    def note_deleted(self, name: str) -> None:
        self._names.pop(name, None)

    def note_synced(self, name: str, *, with_name: bool = False) -> None:
        """A file's bytes are on the disk; SQLite syncs the folder of a file it made as well."""
        if os.path.isdir(name):
            self._synced_names = {n: f for n, f in self._synced_names.items() if os.path.dirname(n) != name}
            self._synced_names |= {n: f for n, f in self._names.items() if os.path.dirname(n) == name}
            return
        if name in self._names:
            self._synced[self._names[name]] = _read(name)
            if with_name:
                self._synced_names[name] = self._names[name]

    # -- after the crash ----------------------------------------------------------------------------------------------

    def leave(self, folder: Path, remains: Remains) -> None:
        """Write to `folder` what a crash at this moment leaves of the files."""
        if remains == "kept":
            shutil.copytree(self.root, folder)
            return
        for path in (self.root, *self.root.rglob("*")):
            if path.is_dir():
                (folder / path.relative_to(self.root)).mkdir()
        now = {file: name for name, file in self._names.items()}
        for name, file in self._synced_names.items():
            data = self._synced.get(file, b"")
            if remains == "half" and file in now:
                written = _read(now[file])
                if written.startswith(data):
                    data = written[: (len(data) + len(written) + 1) // 2]
            target = folder / Path(name).relative_to(self.root)
            target.write_bytes(data)
            target.chmod(0o600)


def _read(name: str) -> bytes:
    return Path(name).read_bytes()
