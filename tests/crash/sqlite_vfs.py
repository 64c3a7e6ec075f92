"""SQLite's calls to the operating system, led through a `Disk` (sqlite.org/vfs.html, "shim").

The default VFS is copied; opening, writing, syncing, truncating, deleting and reading are replaced by functions that
ask the disk first. Files elsewhere, locks and shared memory are as ever. Layouts: `sqlite3_vfs` and
`sqlite3_io_methods` of sqlite3.h, which never change.
"""

import _sqlite3
import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from typing import Any

from .disk import Death, Disk

OK, IOERR, FULL, CANTOPEN = 0, 10, 13, 14
IOERR_READ, IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE, IOERR_DELETE = (IOERR | n << 8 for n in (1, 3, 4, 6, 10))
_OPEN_CREATE = 0x4


def _fields(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_void_p) for name in names]


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int), ("szOsFile", c_int), ("mxPathname", c_int), ("pNext", c_void_p), ("zName", c_char_p),
        *_fields(
            "pAppData", "xOpen", "xDelete", "xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose",
            "xRandomness", "xSleep", "xCurrentTime", "xGetLastError", "xCurrentTimeInt64", "xSetSystemCall",
            "xGetSystemCall", "xNextSystemCall",
        ),
    ]  # fmt: skip


class _IoMethods(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int),
        *_fields(
            "xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize", "xLock", "xUnlock", "xCheckReservedLock",
            "xFileControl", "xSectorSize", "xDeviceCharacteristics", "xShmMap", "xShmLock", "xShmBarrier",
            "xShmUnmap", "xFetch", "xUnfetch",
        ),
    ]  # fmt: skip


# Names are pointers: SQLite keeps them, and reads parameters behind their end.
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_CLOSE = CFUNCTYPE(c_int, c_void_p)
_TRANSFER = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class _Failed(Exception):
    """The real call's own result code."""


class _Shim:
    """Registered once per process as the default VFS; passes everything on while no disk is installed."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = [c_char_p]
        library.sqlite3_vfs_register.argtypes = [POINTER(_Vfs), c_int]
        real = library.sqlite3_vfs_find(None).contents
        self.disk: Disk | None = None
        self._files: dict[int, tuple[Disk, str]] = {}
        """Open files of SQLite below a disk's folder, by the address of their `sqlite3_file`."""
        self._methods: dict[int, tuple[_IoMethods, _IoMethods]] = {}
        """(ours, the VFS's) by the address of the VFS's."""
        self._real_open, self._real_delete = _OPEN(real.xOpen), _DELETE(real.xDelete)
        self._vfs = _Vfs.from_buffer_copy(real)
        self._vfs.zName = b"crash"
        self._keep: list[Any] = []
        """Callbacks that C holds on to."""
        self._vfs.xOpen = self._callback(_OPEN, self._open)
        self._vfs.xDelete = self._callback(_DELETE, self._delete)
        library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)

    def _callback(self, kind: Any, function: Callable[..., int]) -> int | None:
        self._keep.append(kind(function))
        return ctypes.cast(self._keep[-1], c_void_p).value

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out_flags: Any) -> int:
        def perform() -> int:
            return int(self._real_open(vfs, name, file, flags, out_flags))

        disk, path = self.disk, ctypes.string_at(name).decode() if name else ""
        if disk is None or not disk.covers(path):
            return perform()

        def create() -> None:
            _expect_ok(perform())
            if flags & _OPEN_CREATE:
                disk.note_created(path)
            self._files[file] = (disk, path)
            self._replace_methods(file)

        code = _call(disk, "create" if flags & _OPEN_CREATE else "open", path, create, CANTOPEN)
        if code != OK and file not in self._files:
            ctypes.cast(file, POINTER(c_void_p))[0] = None  # no xClose for a file that is not open
        return code

    def _delete(self, vfs: int, name: int, is_folder_synced: int) -> int:
        disk, path = self.disk, ctypes.string_at(name).decode()
        if disk is None or not disk.covers(path):
            return int(self._real_delete(vfs, name, is_folder_synced))

        def perform() -> None:
            _expect_ok(int(self._real_delete(vfs, name, 0)))
            disk.note_deleted(path)

        return _call(disk, "unlink", path, perform, IOERR_DELETE)

    def _replace_methods(self, file: int) -> None:
        slot = ctypes.cast(file, POINTER(c_void_p))
        address = slot[0]
        assert address is not None
        if address not in self._methods:
            real = _IoMethods.from_address(address)
            ours = _IoMethods.from_buffer_copy(real)
            ours.xClose = self._callback(_CLOSE, self._make_close(_CLOSE(real.xClose)))
            ours.xRead = self._callback(_TRANSFER, self._make_read(_TRANSFER(real.xRead)))
            ours.xWrite = self._callback(_TRANSFER, self._make_write(_TRANSFER(real.xWrite)))
            ours.xTruncate = self._callback(_TRUNCATE, self._make_truncate(_TRUNCATE(real.xTruncate)))
            ours.xSync = self._callback(_SYNC, self._sync)
            self._methods[address] = (ours, real)
        slot[0] = ctypes.addressof(self._methods[address][0])

    def _make_close(self, real: Callable[..., int]) -> Callable[[int], int]:
        def close(file: int) -> int:
            self._files.pop(file, None)
            return real(file)

        return close

    def _make_read(self, real: Callable[..., int]) -> Callable[[int, int, int, int], int]:
        def read(file: int, buffer: int, amount: int, offset: int) -> int:
            disk, _ = self._files[file]
            return IOERR_READ if disk.is_dead else real(file, buffer, amount, offset)

        return read

    def _make_write(self, real: Callable[..., int]) -> Callable[[int, int, int, int], int]:
        def write(file: int, buffer: int, amount: int, offset: int) -> int:
            disk, path = self._files[file]

            def tear() -> None:
                _expect_ok(real(file, buffer, amount // 2, offset))
                if disk.is_full:
                    raise OSError(errno.ENOSPC, "SQLite is told of a short write as of a full disk")

            return _call(disk, "write", path, lambda: _expect_ok(real(file, buffer, amount, offset)), IOERR_WRITE, tear)

        return write

    def _make_truncate(self, real: Callable[..., int]) -> Callable[[int, int], int]:
        def truncate(file: int, size: int) -> int:
            disk, path = self._files[file]
            return _call(disk, "truncate", path, lambda: _expect_ok(real(file, size)), IOERR_TRUNCATE)

        return truncate

    def _sync(self, file: int, flags: int) -> int:
        disk, path = self._files[file]
        return _call(disk, "sync", path, lambda: disk.note_synced(path, with_name=True), IOERR_FSYNC)


def _expect_ok(code: int) -> None:
    if code != OK:
        raise _Failed(code)


def _call(
    disk: Disk, what: str, path: str, perform: Callable[[], None], code: int, tear: Callable[[], None] | None = None
) -> int:
    """Nothing may be raised through C: what happens becomes a result code."""
    try:
        disk.call(what, path, perform, tear)
    except _Failed as failed:
        return int(failed.args[0])
    except Death:
        return code
    except OSError as error:
        return FULL if error.errno == errno.ENOSPC else code
    return OK


_shim: list[_Shim] = []


@contextmanager
def route_sqlite(disk: Disk) -> Iterator[None]:
    """Files of SQLite below the disk's folder that are opened while the block lasts are the disk's."""
    if not _shim:
        _shim.append(_Shim())
    assert _shim[0].disk is None, "one disk at a time"
    _shim[0].disk = disk
    try:
        yield
    finally:
        _shim[0].disk = None
