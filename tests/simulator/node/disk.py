"""A disk in memory that forgets in a crash what was not synced, for the real write-ahead log and the real signer.

What a crash leaves of a file is its last synced content and some of the calls made since, in order; the first write
that is not kept whole may be torn: cut anywhere, or of full length with zeros at its end (sectors that were allocated
and not written). Names that were made or replaced since the folder was synced come back in the same way.

Production code has no switch for it: `installed` puts `SimOs` in place of `os` in the two modules that write.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from flockchain import files
from flockchain.node import wal

from .dice import Dice


@dataclass(slots=True)
class _File:
    """`unsynced`: bytes appended, or a size truncated to."""

    content: bytes = b""
    synced: bytes = b""
    unsynced: list[bytes | int] = field(default_factory=list)


class SimDisk:
    """The one folder of one machine. `before_call` runs before every call that changes something, and may raise."""

    def __init__(self, before_call: Callable[[], None] = lambda: None) -> None:
        self.torn_writes = 0
        self.files: dict[str, _File] = {}
        self._before_call = before_call
        self._synced_files: dict[str, _File] = {}
        self._unsynced_names: list[tuple[str, str, _File]] = []
        """(name before or "", name, file)"""

    def path(self, name: str) -> Any:
        """Stands for a `Path`."""
        return SimPath(self, name)

    def open(self, name: str, flags: int) -> _File:
        self._before_call()
        file = self.files.get(name)
        if file is None:
            assert flags & os.O_CREAT
            file = self.files[name] = _File()
            self._unsynced_names.append(("", name, file))
        if flags & os.O_TRUNC:
            self._truncate(file, 0)
        return file

    def append(self, file: _File, data: bytes) -> None:
        """Log and signer state are only ever written at their end."""
        self._before_call()
        file.content += data
        file.unsynced.append(data)

    def truncate(self, file: _File, size_bytes: int) -> None:
        self._before_call()
        self._truncate(file, size_bytes)

    def sync(self, file: _File) -> None:
        self._before_call()
        file.synced, file.unsynced = file.content, []

    def sync_folder(self) -> None:
        self._before_call()
        self._synced_files, self._unsynced_names = dict(self.files), []

    def replace(self, source: str, target: str) -> None:
        self._before_call()
        file = self.files[target] = self.files.pop(source)
        self._unsynced_names.append((source, target, file))

    def crash(self, dice: Dice) -> None:
        """The power is cut."""
        for source, target, file in self._unsynced_names[: dice.between(0, len(self._unsynced_names))]:
            self._synced_files.pop(source, None)
            self._synced_files[target] = file
        self.files, self._unsynced_names = dict(self._synced_files), []
        for file in self.files.values():
            self._lose_unsynced(file, dice)

    def lose(self, name: str) -> bool:
        """A file is gone, synced or not; False when there was none."""
        return self._synced_files.pop(name, None) is not None and self.files.pop(name, None) is not None

    def _lose_unsynced(self, file: _File, dice: Dice) -> None:
        kept = dice.between(0, len(file.unsynced))
        for change in file.unsynced[:kept]:
            file.synced = file.synced[:change] if isinstance(change, int) else file.synced + change
        torn = file.unsynced[kept] if kept < len(file.unsynced) else 0
        if isinstance(torn, bytes) and dice.chance(70):
            self.torn_writes += 1
            cut = dice.below(len(torn))
            file.synced += torn[:cut] + (bytes(len(torn) - cut) if dice.chance(30) else b"")
        file.content, file.unsynced = file.synced, []

    def _truncate(self, file: _File, size_bytes: int) -> None:
        if size_bytes != len(file.content):
            file.content = file.content[:size_bytes]
            file.unsynced.append(size_bytes)


class SimPath:
    """As much of a `Path` as log and signer use; "" is the folder."""

    def __init__(self, disk: SimDisk, name: str) -> None:
        self.disk, self.name = disk, name

    @property
    def parent(self) -> "SimPath":
        return SimPath(self.disk, "")

    def with_name(self, name: str) -> "SimPath":
        return SimPath(self.disk, name)

    def mkdir(self, **_: bool) -> None:
        pass

    def exists(self) -> bool:
        return self.name in self.disk.files

    def read_bytes(self) -> bytes:
        return self.disk.files[self.name].content

    def __str__(self) -> str:
        return f"simulated/{self.name}"


class SimOs:
    """The functions of `os` by which durable files are written; everything else is the real module's."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[SimDisk, _File | None]] = {}
        self._descriptors = count(1_000_000)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o600) -> int:
        if not isinstance(path, SimPath):
            return os.open(path, flags, mode)
        descriptor = next(self._descriptors)
        self._open[descriptor] = (path.disk, path.disk.open(path.name, flags) if path.name else None)
        return descriptor

    def fchmod(self, descriptor: int, mode: int) -> None:
        if descriptor not in self._open:
            os.fchmod(descriptor, mode)

    def write(self, descriptor: int, data: bytes) -> int:
        if descriptor not in self._open:
            return os.write(descriptor, data)
        disk, file = self._open[descriptor]
        assert file is not None
        disk.append(file, data)
        return len(data)

    def ftruncate(self, descriptor: int, length: int) -> None:
        if descriptor not in self._open:
            os.ftruncate(descriptor, length)
            return
        disk, file = self._open[descriptor]
        assert file is not None
        disk.truncate(file, length)

    def fsync(self, descriptor: int) -> None:
        if descriptor not in self._open:
            os.fsync(descriptor)
            return
        disk, file = self._open[descriptor]
        if file is None:
            disk.sync_folder()
        else:
            disk.sync(file)

    fdatasync = fsync

    def close(self, descriptor: int) -> None:
        if self._open.pop(descriptor, None) is None:
            os.close(descriptor)

    def replace(self, source: Any, target: Any) -> None:
        if isinstance(source, SimPath):
            source.disk.replace(source.name, target.name)
        else:
            os.replace(source, target)


@contextmanager
def installed() -> Iterator[None]:
    """Log and signer state reach simulated disks while the block lasts."""
    calls: Any = SimOs()
    wal.os = files.os = calls
    try:
        yield
    finally:
        wal.os = files.os = os
