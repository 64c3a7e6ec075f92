"""A failure at every I/O call of a validator's life: open, write, sync, rename, truncate, delete, those of SQLite too.

The story (`story.py`): a new home, three transfers, a file from peers, an upload, a checkpoint, a clean end. Call N
fails: EIO, no space from then on, or the process dies before, amid or after it with or without what was not synced.
The next process on the same home must end with the state root of an undisturbed run, within 5 s of its start, and no
second signature may have left for any height, round and step. `python -m tests.crash` tries every way at every call.
"""

import os
from pathlib import Path

import pytest

from flockchain.node import signer
from flockchain.node.wal import WriteAheadLog
from flockchain.store import connection

from . import sweep as sweep_module
from .__main__ import main
from .kills import kill
from .sweep import CASES, Case, sweep

STEP = 4


@pytest.mark.parametrize("first", [1, 3])
def test_a_failure_at_every_second_call_of_the_disk_is_survived(tmp_path: Path, first: int) -> None:
    """The ways to fail are taken in turn; half of the calls in each test, so that two processes share them."""
    points = list(sweep(tmp_path, first=first, step=STEP))
    assert [str(point) for point in points if point.problem] == []
    assert len(points) >= 70, "the story has about 300 calls"
    assert {point.case for point in points} == set(CASES)
    places = {point.outcome.struck for point in points}
    for part in ("sync /data/wal", "signer_state.json", "chain.sqlite-wal", "/data/blobs/"):
        assert any(part in place for place in places), f"{part} is among what failed: {sorted(places)}"
    assert any(point.outcome.fault for point in points), "some failures end the process with a sentence"


@pytest.mark.parametrize(("limit_s", "status"), [(60.0, 0), (0.0, 1)])
def test_one_call_tried_every_way_says_by_its_exit_whether_there_is_a_finding(
    limit_s: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no time to start in, every way is one; with a minute none is, on however busy a machine."""
    monkeypatch.setattr(sweep_module, "RESTART_LIMIT_S", limit_s)
    assert main(["--only", "60"]) == status
    assert f"{len(CASES)} failures at every call, {status * len(CASES)} findings" in capsys.readouterr().out


@pytest.mark.parametrize("validators", [1, 4])
def test_many_kills_leave_one_signature_for_each_step(tmp_path: Path, validators: int) -> None:
    """Seeds 0 ... of `python -m tests.crash --kills`; blocks of all lives are executed again to the same state root."""
    report = kill(tmp_path, 0, validators, 60)
    assert report.kills == 60
    assert report.blocks > 30
    assert report.signatures > 50


def keep_in_memory(path: Path, data: bytes, mode: int = 0o600) -> None:
    """A signer state that is written and never synced."""
    temporary = path.with_suffix(".tmp")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(file, data)
    os.close(file)
    os.replace(temporary, path)


def skip_sync(log: WriteAheadLog) -> None:
    """A log that is written and never synced."""


def test_control_without_both_syncs_a_second_signature_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either alone still prevents it: the log repeats what was signed, the signer refuses what differs."""
    monkeypatch.setattr(signer, "replace_file", keep_in_memory)
    monkeypatch.setattr(WriteAheadLog, "sync", skip_sync)
    with pytest.raises(AssertionError, match="two signatures at height"):
        kill(tmp_path, 0, 1, 200)


def test_control_without_the_logs_sync_the_chain_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signer refuses what a validator that forgot its own proposal would sign."""
    monkeypatch.setattr(WriteAheadLog, "sync", skip_sync)
    with pytest.raises(AssertionError, match="stuck at height"):
        kill(tmp_path, 0, 1, 200)


def test_control_without_the_stores_sync_a_decided_block_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SYNC", "PRAGMA synchronous=OFF")
    case: Case = ("die-before", "lost")
    assert any(point.problem for point in sweep(tmp_path, first=60, step=3, cases=[case]))
