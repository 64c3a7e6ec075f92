"""`flockchain tx commit-final`: the file behind its salt, its root, and that nothing is written over."""

import json
from pathlib import Path
from typing import Any

import pytest

from flockchain.chunks import compute_file_root
from flockchain.cli.finals import make_commit_final
from flockchain.errors import Refused
from flockchain.txs.commit_final import Body

TERMS: dict[str, Any] = {"vested_ppm": 300_000, "reveal_ms": 60_000, "judge_ms": 60_000, "judge_pay_uflk": 5}


def commit(file: Path, holdout: list[str] | None) -> Body:
    body = make_commit_final(None, file, **TERMS, holdout=holdout)  # type: ignore[arg-type]
    assert isinstance(body, Body)
    return body


def test_the_file_is_written_once_and_its_root_is_what_is_sent(tmp_path: Path) -> None:
    (tmp_path / "code.txt").write_text("def answer(): return 42\n")
    file = tmp_path / "final.jsonl"
    body = commit(file, [f"code={tmp_path / 'code.txt'}"])
    assert (body.terms.root, body.terms.size_bytes) == compute_file_root(file)
    assert file.stat().st_mode & 0o077 == 0, "secret"
    salt, document = map(json.loads, file.read_text().splitlines())
    assert (salt["source"], len(salt["text"]), document["source"]) == ("salt", 64, "code")
    assert commit(file, None) == body
    with pytest.raises(Refused, match="leave --holdout out to use it"):
        commit(file, [f"code={tmp_path / 'code.txt'}"])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not exist: give --holdout"):
        commit(tmp_path / "final.jsonl", None)
    with pytest.raises(Refused, match=r"code\.txt"):
        commit(tmp_path / "final.jsonl", [f"code={tmp_path / 'code.txt'}"])
    assert not (tmp_path / "final.jsonl").exists()
