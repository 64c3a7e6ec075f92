"""Signed bytes are written down before they are sent, and only ever re-sent.

A worker that crashes between signing and sending, or is started twice in a round, finds what it signed and sends the
same bytes again. Signing a second, different adapter or vote for one round would be evidence against its owner.
"""

import fcntl
from collections.abc import Callable
from pathlib import Path

from flockchain.errors import Fault
from flockchain.files import replace_file


class Outbox:
    """A folder of signed messages by name, locked to one process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise Fault(
                f"another worker uses {folder}: stop it first, two workers of one key can sign twice and be slashed"
            ) from None

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, name: str) -> bytes | None:
        """What was written under `name`, or None."""
        path = self.folder / name
        return path.read_bytes() if path.exists() else None

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The bytes under `name`; made and fsynced by the first call, only read by later ones."""
        found = self.find(name)
        if found is not None:
            return found
        data = make()
        self.replace(name, data)
        return data

    def replace(self, name: str, data: bytes) -> None:
        """Write `data` under `name` in place of what was there: whole, and on the disk when this returns."""
        replace_file(self.folder / name, data)
