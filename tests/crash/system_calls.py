"""Puts a `Disk` in place of the system's calls below its folder."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .disk import Disk
from .sqlite_vfs import route_sqlite

_os = {
    name: getattr(os, name)
    for name in (
        "open", "close", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "truncate", "replace", "unlink", "mkdir"
    )
}  # fmt: skip
_io_open = io.open


@contextmanager
def installed(disk: Disk) -> Iterator[Disk]:
    """Calls on files below the disk's folder go through it while the block lasts; others sync nothing for real.

    At the end every descriptor that is left open is closed, and the locks on it are gone, as when a process ends.
    """
    calls = SystemCalls(disk)
    replaced: dict[str, Any] = {name: getattr(calls, name) for name in _os}
    for name, function in replaced.items():
        setattr(os, name, function)
    io.open = calls.open_stream  # type: ignore[assignment]
    try:
        with route_sqlite(disk):
            yield disk
    finally:
        for name, function in _os.items():
            setattr(os, name, function)
        io.open = _io_open
        for descriptor in calls.opened:
            _os["close"](descriptor)


class SystemCalls:
    """The functions of `os` by which flockchain touches files, over one disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.opened: dict[int, str] = {}

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = self._find(path)
        if name is None:
            return int(_os["open"](path, flags, mode, dir_fd=dir_fd))
        is_new = bool(flags & os.O_CREAT) and not os.path.exists(name)

        def perform() -> int:
            descriptor = int(_os["open"](path, flags, mode))
            self.opened[descriptor] = name
            if is_new:
                self._disk.note_created(name)
            return descriptor

        return int(self._disk.call("create" if is_new else "open", name, perform))

    def open_stream(self, path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        """`io.open`, which pathlib uses; our code reads by it and writes by `os`."""
        name = self._find(path)
        if name is None:
            return _io_open(path, mode, *rest, **options)
        assert set(mode) <= set("rb"), f"{name} is opened with mode {mode}: writes belong to `os`, where they count"
        return self._disk.call("read", name, lambda: _io_open(path, mode, *rest, **options))

    def close(self, descriptor: int) -> None:
        self.opened.pop(descriptor, None)
        _os["close"](descriptor)

    def write(self, descriptor: int, data: bytes) -> int:
        half = data[: (len(data) + 1) // 2]
        return int(self._on(descriptor, "write", lambda part: _os["write"](descriptor, part), data, half))

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        half = data[: (len(data) + 1) // 2]
        return int(self._on(descriptor, "write", lambda part: _os["pwrite"](descriptor, part, offset), data, half))

    def _on(self, descriptor: int, what: str, write: Callable[[bytes], Any], data: bytes, half: bytes) -> Any:
        name = self.opened.get(descriptor)
        if name is None:
            return write(data)
        return self._disk.call(what, name, lambda: write(data), lambda: write(half))

    def fsync(self, descriptor: int) -> None:
        name = self.opened.get(descriptor)
        if name is not None:
            self._disk.call("sync", name, lambda: self._disk.note_synced(name))

    fdatasync = fsync

    def ftruncate(self, descriptor: int, length: int) -> None:
        name = self.opened.get(descriptor)
        if name is None:
            _os["ftruncate"](descriptor, length)
        else:
            self._disk.call("truncate", name, lambda: _os["ftruncate"](descriptor, length))

    def truncate(self, path: Any, length: int) -> None:
        self._named("truncate", path, lambda: _os["truncate"](path, length))

    def replace(self, source: Any, target: Any) -> None:
        name = self._find(source)
        assert name is None or self._find(target), "files stay below the folder"

        def perform() -> None:
            _os["replace"](source, target)
            if name is not None:
                self._disk.note_renamed(name, os.fspath(target))

        self._named("rename", source, perform)

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        if self._find(path) is None:
            _os["unlink"](path, dir_fd=dir_fd)
            return

        def perform() -> None:
            _os["unlink"](path)
            self._disk.note_deleted(os.fspath(path))

        self._named("unlink", path, perform)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if self._find(path) is None or os.path.isdir(path):
            _os["mkdir"](path, mode, dir_fd=dir_fd)
        else:
            self._named("mkdir", path, lambda: _os["mkdir"](path, mode))

    def _named(self, what: str, path: Any, perform: Callable[[], None]) -> None:
        name = self._find(path)
        if name is None:
            perform()
        else:
            self._disk.call(what, name, perform)

    def _find(self, path: Any) -> str | None:
        """The path, when it lies below the disk's folder."""
        name = path if isinstance(path, int | bytes) else os.fspath(path)
        return name if isinstance(name, str) and self._disk.covers(name) else None
