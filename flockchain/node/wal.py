"""The write-ahead log: what consensus was told at the current height, so that a restart repeats it exactly.

    record    its length (4 bytes, big endian), the first 8 bytes of its sha256, the record
    mark      80 00 00 08, the first 8 bytes of its body's sha256, the body: the offset up to which the log was on disk

`sync` comes before every signature leaves. A crash tears what was not synced, so damage at the end of the log is cut
when it is opened. The first append after a sync begins with a mark: damage in front of an offset that a later mark
names is no crash but a bad disk or a hand, and is refused. The log of a decided height is worthless: `reset` empties
it.
"""

import os
from pathlib import Path
from typing import NoReturn

from flockchain.crypto import sha256
from flockchain.errors import Fault
from flockchain.files import disk_faults, sync_folder

MAX_RECORD_BYTES = 8 * 2**20
MAX_LOG_BYTES = 2**30
"""A height whose log grows beyond this will not decide without help from a person."""
_LENGTH_BYTES = 4
_CHECKSUM_BYTES = 8
_PREFIX_BYTES = _LENGTH_BYTES + _CHECKSUM_BYTES
_OFFSET_BYTES = 8
_MARK = (2**31 + _OFFSET_BYTES).to_bytes(_LENGTH_BYTES, "big")
"""In place of a length: longer than any record, so that neither is taken for the other."""


class WriteAheadLog:
    """Append-only records of one height. After a `Fault` it takes nothing more: a restart reads what is on disk."""

    def __init__(self, path: Path) -> None:
        """Open or create; `records` holds what an earlier process left, `torn_bytes` what was cut.

        Raises `Fault` when the disk refuses, or when records are damaged that were on the disk.
        """
        self._path = path
        self._failure: Fault | None = None
        with disk_faults(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
            self.records, whole = _scan(data)
            _check_tail_was_never_synced(path, data, whole)
            self.torn_bytes = len(data) - whole
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.ftruncate(self._file, whole)
                sync_folder(path.parent)
            except BaseException:
                os.close(self._file)
                raise
        self._size = whole
        self._is_dirty = True
        self._is_mark_due = False

    def append(self, record: bytes) -> None:
        """Write a record; it is durable after the next `sync`. Raises `Fault`."""
        assert 0 < len(record) <= MAX_RECORD_BYTES
        self._refuse_after_failure()
        if self._size + len(record) > MAX_LOG_BYTES:
            raise Fault(f"the write-ahead log reached {MAX_LOG_BYTES} bytes at one height: consensus is stuck; restart")
        data = _frame(len(record).to_bytes(_LENGTH_BYTES, "big"), record)
        if self._is_mark_due:
            data = _frame(_MARK, self._size.to_bytes(_OFFSET_BYTES, "big")) + data
        try:
            _write_all(self._file, data)
        except OSError as error:
            self._fail("written", error)
        self._size += len(data)
        self._is_dirty = True
        self._is_mark_due = False

    def sync(self) -> None:
        """Make all appended records durable; raises `Fault`.

        A failed sync is never tried again: the kernel may have dropped the bytes and would say that all is well
        (wiki.postgresql.org/wiki/Fsync_Errors).
        """
        self._refuse_after_failure()
        if self._is_dirty:
            try:
                os.fdatasync(self._file)
            except OSError as error:
                self._fail("synced", error)
            self._is_dirty = False
            self._is_mark_due = self._size > 0

    def reset(self) -> None:
        """Empty the log: its height is decided and persisted. Raises `Fault`."""
        self._refuse_after_failure()
        try:
            os.ftruncate(self._file, 0)
        except OSError as error:
            self._fail("emptied", error)
        self.records = []
        self._size = 0
        self._is_dirty = True
        self._is_mark_due = False

    def close(self) -> None:
        os.close(self._file)

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, what: str, error: OSError) -> NoReturn:
        self._failure = Fault(
            f"the write-ahead log {self._path} cannot be {what}: {error.strerror or error}. Decided blocks are safe, "
            "and no signature left that follows from what is missing. Free space or put the disk right, start again"
        )
        raise self._failure from error


def _frame(head: bytes, body: bytes) -> bytes:
    return head + sha256(body)[:_CHECKSUM_BYTES] + body


def _scan(data: bytes) -> tuple[list[bytes], int]:
    """Whole records from the start, and the number of bytes that they and the marks between them take."""
    records: list[bytes] = []
    offset = 0
    while offset + _PREFIX_BYTES <= len(data):
        head, start = data[offset : offset + _LENGTH_BYTES], offset + _PREFIX_BYTES
        length = _OFFSET_BYTES if head == _MARK else int.from_bytes(head, "big")
        body = data[start : start + length]
        is_whole = 0 < length <= MAX_RECORD_BYTES and len(body) == length
        if not is_whole or sha256(body)[:_CHECKSUM_BYTES] != data[offset + _LENGTH_BYTES : start]:
            break
        if head != _MARK:
            records.append(body)
        offset = start + length
    return records, offset


def _check_tail_was_never_synced(path: Path, data: bytes, whole: int) -> None:
    """Raise `Fault` when a mark behind the damage at `whole` says that these bytes were on the disk."""
    at = data.find(_MARK, whole)
    while at >= 0:
        body = data[at + _PREFIX_BYTES : at + _PREFIX_BYTES + _OFFSET_BYTES]
        is_mark = len(body) == _OFFSET_BYTES and data.startswith(_frame(_MARK, body), at)
        if is_mark and int.from_bytes(body, "big") > whole:
            raise Fault(
                f"the write-ahead log {path} is damaged at byte {whole} of {len(data)}, in records that were on the "
                "disk: no crash does that, look for a failing disk. Decided blocks are safe, and signer_state.json "
                "still guards against double signing. Move this file away and start again: this validator then leaves "
                "the height in progress to the others, or says why it cannot"
            )
        at = data.find(_MARK, at + 1)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
