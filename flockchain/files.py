"""Files that survive a crash whole: write, fsync, rename, fsync the folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flockchain.errors import Fault

PRIVATE_MODE = 0o600


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
        raise Fault(f"{path}: {error.strerror or error}: free space or fix the rights, then retry") from error


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
