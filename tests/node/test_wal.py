"""The write-ahead log keeps what was synced: what a crash can tear is cut, what it cannot is refused with what to do.

Each story writes batches, each synced, as consensus does before a signature leaves, and damages their bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from flockchain.errors import Fault
from flockchain.node.wal import MAX_RECORD_BYTES, WriteAheadLog

BATCHES = [[b"start"], [b"proposal of the round", b"vote"], [b"x" * 40, b"y"], [b"the last of all"]]
RECORDS = [record for batch in BATCHES for record in batch]
PREFIX_BYTES = 12


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wal"


def write(path: Path, batches: Sequence[Sequence[bytes]] = BATCHES) -> bytes:
    log = WriteAheadLog(path)
    for batch in batches:
        for record in batch:
            log.append(record)
        log.sync()
    log.close()
    return path.read_bytes()


def read(path: Path) -> tuple[list[bytes], int]:
    log = WriteAheadLog(path)
    log.close()
    return log.records, log.torn_bytes


def find_last_record(data: bytes) -> int:
    """Offset of the prefix of the last record."""
    return len(data) - len(RECORDS[-1]) - PREFIX_BYTES


def test_records_come_back_in_order(path: Path) -> None:
    write(path)
    assert read(path) == (RECORDS, 0)


def test_one_batch_torn_at_every_byte_keeps_the_whole_records_before(path: Path) -> None:
    data = write(path, [RECORDS])
    ends = [0]
    for record in RECORDS:
        ends.append(ends[-1] + PREFIX_BYTES + len(record))
    assert ends[-1] == len(data)
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert read(path) == (RECORDS[:whole], cut - ends[whole])
        assert path.stat().st_size == ends[whole], "the torn tail is cut off"


def test_a_flipped_bit_of_the_only_batch_ends_the_log_before_its_record(path: Path) -> None:
    data = write(path, [RECORDS])
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        records, _ = read(path)
        assert records == RECORDS[: len(records)]
        assert len(records) < len(RECORDS)


def test_the_last_record_truncated_at_every_byte_is_cut_and_the_others_stay(path: Path) -> None:
    data = write(path)
    begin = find_last_record(data)
    for cut in range(begin, len(data)):
        path.write_bytes(data[:cut])
        assert read(path) == (RECORDS[:-1], cut - begin)
        log = WriteAheadLog(path)
        log.append(b"after the restart")
        log.close()
        assert read(path) == ([*RECORDS[:-1], b"after the restart"], 0)


def test_a_flipped_bit_of_the_last_record_is_cut_like_a_torn_one(path: Path) -> None:
    data = write(path)
    for at in range(find_last_record(data), len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        assert read(path)[0] == RECORDS[:-1]


def test_a_flipped_bit_in_synced_records_is_refused_and_the_file_untouched(path: Path) -> None:
    """Whatever byte it is: length, checksum or content, of a record or of a mark that others vouch for."""
    data = write(path)
    last_batch = find_last_record(data) - 20  # with the mark before it, for which no later one vouches
    for at in range(last_batch):
        damaged = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        path.write_bytes(damaged)
        with pytest.raises(Fault) as fault:
            WriteAheadLog(path)
        assert "no crash does that" in str(fault.value)
        assert "Decided blocks are safe" in str(fault.value)
        assert "Move this file away" in str(fault.value)
        assert path.read_bytes() == damaged, "evidence of a bad disk is left to the person"


def test_an_unsynced_batch_that_reached_the_disk_in_another_order_is_torn_not_damaged(path: Path) -> None:
    """A crash may leave a hole before bytes that were written later: nothing of them was synced."""
    log = WriteAheadLog(path)
    log.append(b"synced")
    log.sync()
    size = path.stat().st_size
    for record in (b"first of the batch", b"second of the batch"):
        log.append(record)
    log.close()
    data = bytearray(path.read_bytes())
    data[size + 20 : size + 40] = bytes(20)
    path.write_bytes(data)
    assert read(path) == ([b"synced"], len(data) - size - 20)


def test_a_log_of_an_earlier_version_without_marks_is_read(path: Path) -> None:
    log = WriteAheadLog(path)
    for record in RECORDS:
        log.append(record)
    log.close()
    assert len(path.read_bytes()) == sum(12 + len(record) for record in RECORDS)
    assert read(path) == (RECORDS, 0)


def test_a_log_that_failed_once_takes_and_confirms_nothing_more(path: Path) -> None:
    """The descriptor is closed beneath the log: the sync fails, and a second one must not say that all is well."""
    log = WriteAheadLog(path)
    log.append(b"never synced")
    log.close()
    for attempt in (log.sync, log.sync, log.reset, lambda: log.append(b"more")):
        with pytest.raises(Fault, match="no signature left that follows"):
            attempt()


def test_reset_empties_it(path: Path) -> None:
    write(path)
    log = WriteAheadLog(path)
    log.reset()
    log.append(b"next height")
    log.close()
    assert read(path) == ([b"next height"], 0)


def test_a_record_beyond_the_limit_is_our_own_error(path: Path) -> None:
    log = WriteAheadLog(path)
    with pytest.raises(AssertionError):
        log.append(b"x" * (MAX_RECORD_BYTES + 1))
    log.close()
