"""The hidden final set: its file, and the judge that measures on it once it is revealed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from flockchain.chunks import compute_file_root
from flockchain.client import Json
from flockchain.txs import judge_final
from flockchain.workers.finalist import FinalJudge
from flockchain.workers.participant import Participant
from flockchain.workers.store import AdapterFolder
from ml import judge
from ml.data import DataError, Document, Holdout
from ml.final_set import read_final_set, write_final_set
from ml.spec import JudgeSpec

DOMAINS = ("code", "law")
JUDGE = JudgeSpec(min_blocks=6, min_documents=3, block_tokens=32, judge_tokens=32 * 24)
SALT = b"s" * 32


def make_documents(count: int = 4) -> dict[str, list[Document]]:
    return {name: [Document(f"{name} document {i} " * 20) for i in range(count)] for name in DOMAINS}


def test_the_file_is_read_back_and_another_salt_gives_another_root(tmp_path: Path, tiny_tokenizer: Any) -> None:
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    write_final_set(first, make_documents(), SALT)
    write_final_set(second, make_documents(), b"t" * 32)
    holdout = read_final_set(first, DOMAINS, tiny_tokenizer, JUDGE)
    assert holdout.domains == DOMAINS
    assert all(len({block.document for block in holdout.blocks(name)}) == 4 for name in DOMAINS)
    assert compute_file_root(first)[0] != compute_file_root(second)[0]
    assert SALT.hex() not in str(holdout.blocks("code"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"source": "code", "text": "no salt"}\n', "does not begin with a salt"),
        ('{"source": "salt", "text": "' + "a" * 64 + '"}\n{"source": "history", "text": "x"}\n', "domain 'history'"),
        ('{"source": "salt", "text": "' + "a" * 64 + '"}\n{"source": "law", "text": "x"}\n', "for domain code; 6 of 3"),
    ],
)
def test_a_file_that_cannot_carry_figures_is_refused(
    tmp_path: Path, tiny_tokenizer: Any, lines: str, message: str
) -> None:
    (tmp_path / "final.jsonl").write_text(lines)
    with pytest.raises(DataError, match=message):
        read_final_set(tmp_path / "final.jsonl", DOMAINS, tiny_tokenizer, JUDGE)


class Node:
    """What a final judge asks of a node: one task with a final set, and files by root."""

    node = "node0"

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        self.final_set: Json = {}

    def final(self, task: int) -> Json:
        return self.final_set

    def get_blob(self, root: bytes, path: Path) -> bool:
        if root.hex() in self.files:
            path.write_bytes(self.files[root.hex()].read_bytes())
        return root.hex() in self.files

    def status(self) -> Json:
        return {"time_ms": 0}


class Worker(Participant):
    """Keeps what it would send."""

    def __init__(self, node: Node, folder: Path) -> None:
        super().__init__(node, SigningKey(b"k" * 32), 1, folder, lambda what, figures: None)  # type: ignore[arg-type]
        self.sent: list[str] = []
        self.time_ms = 0

    def finish(self, task: Json) -> None: ...

    def step(self, task: Json, round_: Json) -> None: ...

    def now_ms(self) -> int:
        return self.time_ms

    def send_kept(self, name: str, kind: str, *, free: bool = True) -> Json | None:
        self.sent.append(kind)
        return None


class Scene:
    """A drawn judge, a revealed file, and a meter that finds 5 % gain, or fails."""

    def __init__(self, folder: Path, tiny_dir: Path) -> None:
        file, last = folder / "secret.jsonl", folder / "last"
        write_final_set(file, make_documents(), SALT)
        last.write_bytes(b"adapter")
        roots = [compute_file_root(path)[0].hex() for path in (file, last)]
        self.node = Node(dict(zip(roots, (file, last), strict=True)))
        self.worker = Worker(self.node, folder)
        model = {
            "base_hash": "ab" * 32,
            "rank": 2,
            "alpha": 4,
            "target_modules": ["q_proj"],
            "mode": "shared_a",
            "update_step_log2": -7,
            "precision": "fp32",
            "aggregator": "mean",
            "norm_cap": 0,
        }
        judging = {
            "z_milli": 3600,
            "tolerance_ppm": 20_000,
            "min_blocks": 6,
            "min_documents": 3,
            "block_tokens": 32,
            "judge_tokens": 1_000,
            "screen_tokens": 0,
        }
        spec = {"model": model, "judge": judging, "domains": list(DOMAINS), "max_adapter_bytes": 1 << 20}
        self.task = {"id": 1, "seed": "cd" * 32, "global_root": roots[1], "spec": spec}
        self.node.final_set = {
            "phase": "judge",
            "deadline_ms": 1_000,
            "terms": {"root": roots[0], "judge_ms": 1_000},
            "votes": [],
            "draw": {"drawn": [{"address": self.worker.me}], "beacon": "00" * 32},
        }
        self.failure: judge.JudgingFailed | None = None
        folder_of = AdapterFolder(folder / "adapters", self.node)  # type: ignore[arg-type]
        self.judge = FinalJudge(self.worker, folder_of, tiny_dir, self.make_meter)

    def make_meter(self, task: Json, final: Json, model: Any, holdout: Holdout) -> Any:
        assert holdout.domains == DOMAINS
        return self

    def judge_candidate(self, path: Path) -> tuple[judge.CandidateFigure, ...]:
        assert path.read_bytes() == b"adapter"
        if self.failure is not None:
            raise self.failure
        change = judge.Change(-50_000, 1_000)
        return tuple(judge.CandidateFigure(name, 1, 1, change, change, change) for name in ("law", "code"))

    def said(self) -> tuple[str, str, list[int]]:
        """(status, reason, domains) of what it fixed; the signature of it was sent."""
        body = self.worker.kept_body("task1-final", judge_final.Body)
        assert isinstance(body, judge_final.Body)
        assert self.worker.sent == [judge_final.KIND]
        return body.entry.status, body.entry.reason, [figure.domain for figure in body.entry.domains]


@pytest.fixture
def scene(tmp_path: Path, tiny_dir: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, tiny_dir)
    yield made
    made.worker.outbox.close()


def test_a_drawn_judge_measures_and_says_so_once(scene: Scene) -> None:
    scene.judge.step(scene.task)
    assert scene.said() == ("scored", "", [0, 1])
    scene.node.final_set["votes"] = [{"judge": scene.worker.me}]
    scene.judge.step(scene.task)
    assert len(scene.worker.sent) == 1


def test_who_is_not_drawn_says_nothing(scene: Scene) -> None:
    scene.node.final_set["draw"]["drawn"] = []
    scene.judge.step(scene.task)
    assert scene.worker.sent == []


def test_missing_bytes_are_waited_for_and_then_the_creators_fault(scene: Scene) -> None:
    scene.node.files.pop(scene.node.final_set["terms"]["root"])
    scene.judge.step(scene.task)
    assert scene.worker.sent == []
    scene.worker.time_ms = 750
    scene.judge.step(scene.task)
    assert scene.said() == ("unavailable", "its bytes could not be had", [])


def test_a_missing_adapter_is_not(scene: Scene) -> None:
    scene.node.files.pop(scene.task["global_root"])
    scene.worker.time_ms = 750
    scene.judge.step(scene.task)
    assert scene.said()[0] == "abstain"


def test_an_unreadable_file_is_malformed(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"source": "code", "text": "no salt"}\n')
    scene.judge.step(scene.task)
    assert scene.said() == ("malformed", "the final set does not begin with a salt of 64 hex digits", [])


def test_a_failure_to_measure_is_an_abstention(scene: Scene) -> None:
    scene.failure = judge.JudgingFailed("out-of-memory")
    scene.judge.step(scene.task)
    assert scene.said() == ("abstain", "out-of-memory", [])
