"""Writing small files so that a crash leaves the old one or the new one, never half of one."""

import os
from pathlib import Path

from flockchain.errors import Fault

PRIVATE_MODE = 0o600


def replace_file(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Durably replace `path`: write beside it, fsync, rename, fsync the folder; raises `Fault`."""
    temporary = path.with_name(path.name + ".tmp")
    try:
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
    except OSError as error:
        raise Fault(f"cannot write {path}: {error}; free space or repair the permissions, then start again") from None


def sync_folder(folder: Path) -> None:
    """Make a rename within `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
