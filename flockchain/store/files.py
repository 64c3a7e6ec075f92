"""Files that survive a crash whole: write, fsync, rename, fsync the folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flockchain.errors import Fault


def sync_file(path: Path) -> None:
    """Return once the file's bytes are on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Return once names made, renamed or removed in the folder are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Turn what the disk says into a `Fault` that says what to do."""
    try:
        yield
    except OSError as error:
        raise Fault(
            f"{folder}: {error.strerror or error}: free space or fix the folder's rights, then retry"
        ) from error
