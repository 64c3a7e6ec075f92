"""The write-ahead log: what consensus was told at the current height, so that a restart repeats it exactly.

Each record is its length (4 bytes, big endian), the first 8 bytes of its sha256, then the record itself.
`sync` comes before every signature leaves; a tail that was torn by a crash is cut when the log is opened, and
nothing that was synced is in it. The log of a decided height is worthless: `reset` empties it.
"""

import os
from pathlib import Path

from flockchain.crypto import sha256
from flockchain.errors import Fault
from flockchain.files import sync_folder

MAX_RECORD_BYTES = 8 * 2**20
MAX_LOG_BYTES = 2**30
"""A height whose log grows beyond this will not decide without help from a person."""
_LENGTH_BYTES = 4
_CHECKSUM_BYTES = 8
_PREFIX_BYTES = _LENGTH_BYTES + _CHECKSUM_BYTES


class WriteAheadLog:
    """Append-only records of one height."""

    def __init__(self, path: Path) -> None:
        """Open or create; `records` holds what an earlier process left, `torn_bytes` what was cut."""
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        self.records, whole = _scan(data)
        self.torn_bytes = len(data) - whole
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._file, whole)
        sync_folder(path.parent)
        self._size = whole
        self._is_dirty = True

    def append(self, record: bytes) -> None:
        """Write a record; it is durable after the next `sync`."""
        assert 0 < len(record) <= MAX_RECORD_BYTES
        if self._size + len(record) > MAX_LOG_BYTES:
            raise Fault(f"the write-ahead log reached {MAX_LOG_BYTES} bytes at one height: consensus is stuck; restart")
        data = len(record).to_bytes(_LENGTH_BYTES, "big") + sha256(record)[:_CHECKSUM_BYTES] + record
        _write_all(self._file, data)
        self._size += len(data)
        self._is_dirty = True

    def sync(self) -> None:
        """Make all appended records durable."""
        if self._is_dirty:
            os.fdatasync(self._file)
            self._is_dirty = False

    def reset(self) -> None:
        """Empty the log: its height is decided and persisted."""
        os.ftruncate(self._file, 0)
        self.records = []
        self._size = 0
        self._is_dirty = True

    def close(self) -> None:
        os.close(self._file)


def _scan(data: bytes) -> tuple[list[bytes], int]:
    """Whole records from the start, and the number of bytes they take."""
    records: list[bytes] = []
    offset = 0
    while offset + _PREFIX_BYTES <= len(data):
        start = offset + _PREFIX_BYTES
        length = int.from_bytes(data[offset : offset + _LENGTH_BYTES], "big")
        record = data[start : start + length]
        is_whole = 0 < length <= MAX_RECORD_BYTES and len(record) == length
        if not is_whole or sha256(record)[:_CHECKSUM_BYTES] != data[offset + _LENGTH_BYTES : start]:
            break
        records.append(record)
        offset = start + length
    return records, offset


def _write_all(file: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError as error:
        raise Fault(f"cannot write the write-ahead log: {error}; free space on the disk, then start again") from None
