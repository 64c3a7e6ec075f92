"""What was signed once is never made again."""

from pathlib import Path

import pytest

from flockchain.errors import Fault
from flockchain.workers.outbox import Outbox


def test_the_second_call_returns_the_first_bytes(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        assert outbox.keep("task1-round1-submit", lambda: b"first") == b"first"
        assert outbox.keep("task1-round1-submit", lambda: b"second") == b"first"


def test_a_restart_finds_what_was_signed(tmp_path: Path) -> None:
    with Outbox(tmp_path) as before:
        before.keep("vote", lambda: b"sealed")
    with Outbox(tmp_path) as after:
        assert after.find("vote") == b"sealed"


def test_a_half_written_file_is_not_taken_for_a_message(tmp_path: Path) -> None:
    (tmp_path / "vote.tmp").write_bytes(b"sea")
    with Outbox(tmp_path) as outbox:
        assert outbox.keep("vote", lambda: b"sealed") == b"sealed"


def test_a_second_worker_on_one_outbox_is_refused(tmp_path: Path) -> None:
    with Outbox(tmp_path), pytest.raises(Fault, match="another worker uses"):
        Outbox(tmp_path)
