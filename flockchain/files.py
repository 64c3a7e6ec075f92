"""Files that survive a crash whole: write, fsync, rename, fsync the folder."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flockchain.errors import Fault

PRIVATE_MODE = 0o600
_FULL = (
    "the disk is full: what was being written does not count, what was there before is kept; free space and start again"
)
_FORBIDDEN = (
    "this user may not use it, nothing was changed: run as the home's owner, or fix the rights, then start again"
)
_EXPLANATIONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EIO: "the disk reports an error: what was being written does not count, what was there before is kept if the "
    "disk kept it; look into the kernel's log, put the disk right, and start again",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "the file system is read-only, nothing was changed: look into the kernel's log for a disk error, "
    "mount it for writing, and start again",
    errno.ENOENT: "it is missing: put it back, then start again",
    errno.EMFILE: "this process has too many open files, nothing was changed: raise `ulimit -n` and start again",
}


def replace_file(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Durably replace `path`, so that a crash leaves the old file or the new one, never half of one; raises `Fault`."""
    temporary = path.with_name(path.name + ".tmp")
    with disk_faults(path):
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            os.fchmod(file, mode)
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, path)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Return once the file's bytes are on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Return once names made, renamed or removed in the folder are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn what the disk says about `path` into a `Fault` that says what to do."""
    try:
        yield
    except OSError as error:
        raise Fault(explain(path, error)) from error


def explain(path: Path, error: OSError) -> str:
    """What the disk said about `path`, what is safe, and what to do next."""
    said = error.strerror or str(error)
    known = _EXPLANATIONS.get(error.errno or 0)
    if known is None:
        return f"{path}: {said}: what was there before is kept; put this right, then start again"
    return f"{path}: {known} ({said})"


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
