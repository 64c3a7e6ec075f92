"""The write-ahead log keeps what was synced, whatever a crash leaves of the tail."""

from pathlib import Path

import pytest

from flockchain.node.wal import MAX_RECORD_BYTES, WriteAheadLog

RECORDS = [b"first", b"second, longer", b"3", b"x" * 300]


def write(path: Path) -> bytes:
    log = WriteAheadLog(path)
    for record in RECORDS:
        log.append(record)
    log.sync()
    log.close()
    return path.read_bytes()


def read(path: Path) -> tuple[list[bytes], int]:
    log = WriteAheadLog(path)
    log.close()
    return log.records, log.torn_bytes


def test_records_come_back_in_order(tmp_path: Path) -> None:
    write(tmp_path / "wal")
    assert read(tmp_path / "wal") == (RECORDS, 0)


def test_torn_at_every_byte_the_whole_records_before_survive(tmp_path: Path) -> None:
    data = write(tmp_path / "wal")
    ends = [0]
    for record in RECORDS:
        ends.append(ends[-1] + 12 + len(record))
    assert ends[-1] == len(data)
    for cut in range(len(data) + 1):
        path = tmp_path / "torn"
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert read(path) == (RECORDS[:whole], cut - ends[whole])
        assert path.stat().st_size == ends[whole], "the torn tail is cut off"


def test_a_flipped_bit_ends_the_log_before_its_record(tmp_path: Path) -> None:
    data = write(tmp_path / "wal")
    for position in range(len(data)):
        path = tmp_path / "flipped"
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        records, _ = read(path)
        assert records == RECORDS[: len(records)]
        assert len(records) < len(RECORDS)


def test_appending_goes_on_behind_a_torn_tail(tmp_path: Path) -> None:
    data = write(tmp_path / "wal")
    (tmp_path / "wal").write_bytes(data[:-1])
    log = WriteAheadLog(tmp_path / "wal")
    log.append(b"after the crash")
    log.close()
    assert read(tmp_path / "wal") == ([*RECORDS[:-1], b"after the crash"], 0)


def test_reset_empties_it(tmp_path: Path) -> None:
    write(tmp_path / "wal")
    log = WriteAheadLog(tmp_path / "wal")
    log.reset()
    log.append(b"next height")
    log.close()
    assert read(tmp_path / "wal") == ([b"next height"], 0)


def test_a_record_beyond_the_limit_is_our_own_error(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path / "wal")
    with pytest.raises(AssertionError):
        log.append(b"x" * (MAX_RECORD_BYTES + 1))
    log.close()
