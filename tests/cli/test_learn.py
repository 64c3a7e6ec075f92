"""`score` gives a committee's own number; `adapter export` writes a folder that scores the same without a chain."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from flockchain.workers.view import make_judge_spec, make_model  # noqa: E402
from ml.adapter import read_global, read_update  # noqa: E402
from ml.data import Holdout, read_documents  # noqa: E402
from ml.judge import HoldoutMeter  # noqa: E402
from ml.score import ScoringBase  # noqa: E402
from ml.tiny import write_tiny  # noqa: E402
from ml.tokens import BaseTokenizer  # noqa: E402
from tests.support.command import Shell  # noqa: E402
from tests.support.served import serve_home  # noqa: E402
from tests.verify.chain import Chain, make_chain  # noqa: E402

BEACON = "5a" * 32


@dataclass(frozen=True, slots=True)
class Served:
    """A chain with two settled rounds, on a base that can really be scored."""

    chain: Chain
    url: str
    base: Path
    data: Path

    def blob(self, root: str) -> Path:
        return self.chain.home / "data" / "blobs" / root


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("learn")
    base, data = folder / "base", folder / "law.jsonl"
    base.mkdir()
    write_tiny(base)
    lines = [
        {"text": f"Article {i}: " + " ".join(f"duty {i * 7 + k} of the buyer" for k in range(12))} for i in range(16)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chain = make_chain(folder / "home", base)
    with serve_home(chain.home) as url:
        yield Served(chain, url, base, data)


def test_the_score_of_an_update_is_the_figure_of_a_judge(shell: Shell, served: Served, tmp_path: Path) -> None:
    """A judge measures global + k * update / m on the blocks that the beacon chose; so does the command."""
    root, start = served.chain.accepted_roots[1][0], served.blob(served.chain.result_roots[0])
    words = ["--start", start, "--parts", 3, "--coefficient-ppm", 700_000, "--beacon", BEACON, "--dtype", "fp32"]
    task = shell.must("query", "tasks", 1, "--node", served.url)
    task["spec"]["judge"] |= {"min_blocks": 4, "min_documents": 4, "judge_tokens": 3 * 8 * 128}
    (tmp_path / "task.json").write_text(json.dumps(task))
    common = ["--task-file", tmp_path / "task.json", "--base", served.base, "--data", f"law={served.data}"]
    (figure,) = shell.must("score", served.blob(root), *common, *words)["domains"]

    model, judge_spec = make_model(task, served.base), make_judge_spec(task)
    holdout = Holdout.from_documents({"law": read_documents(served.data)}, BaseTokenizer(served.base), 128)
    count = judge_spec.judge_tokens // judge_spec.block_tokens
    blocks = {"law": holdout.draw("law", bytes.fromhex(BEACON), count)}
    current = read_global(start, model.spec)[0]
    scoring = ScoringBase.load(served.base, model.spec, "fp32")
    meter = HoldoutMeter(scoring, judge_spec, blocks, current=current, best=current)
    update, _ = read_update(served.blob(root), model.spec)
    measured = meter.measure_update(update, 700_000, 3)
    (said,) = measured.domains
    assert figure["blocks"] == len(blocks["law"]) == 8
    assert (figure["change_ppm"], figure["se_ppm"]) == (said.current.change_ppm, said.current.se_ppm)
    assert figure["change_ppm"] != 0


def test_an_exported_folder_scores_as_the_adapter_on_the_chain(shell: Shell, served: Served, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    made = shell.must("adapter", "export", 1, folder, "--node", served.url, "--base", served.base)
    assert made["root"] == served.chain.result_roots[1]
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "check.py", "flockchain.json"} <= names
    common = ["--data", served.data, "--base", served.base, "--dtype", "fp32"]
    (folder_figure,) = shell.must("score", folder, *common)["domains"]
    on_chain = served.blob(made["root"])
    (chain_figure,) = shell.must("score", on_chain, *common, "--task-file", folder / "flockchain.json")["domains"]
    assert folder_figure == chain_figure
    assert folder_figure["domain"] == "law"
    assert folder_figure["after_ubpb"] != folder_figure["before_ubpb"]
    again = shell("adapter", "export", 1, folder, "--node", served.url, "--base", served.base)
    assert (again.code, len(again.error_lines)) == (1, 1)
    assert "is not empty" in again.err


def test_the_adapter_after_an_earlier_round(shell: Shell, served: Served, tmp_path: Path) -> None:
    words = ["--round", 1, "--node", served.url, "--base", served.base]
    assert shell.must("adapter", "export", 1, tmp_path / "out", *words)["root"] == served.chain.result_roots[0]


def test_verify_fetches_over_rest_what_a_home_lacks(
    shell: Shell, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOCKCHAIN_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "home"
    shutil.copytree(served.chain.home, home, ignore=shutil.ignore_patterns("blobs"))
    words = ["verify", "--home", home, "--base", served.base, "--strict"]
    assert shell(*words).code == 1
    found = shell.must(*words, "--node", served.url)
    assert (found["ok"], found["adapters"]) == (True, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", 9], "no task 9"),
        (["--task", 1, "--base", "none"], "no base model 'none'"),
        (["--task", 1, "--data", "none.txt"], "does not exist"),
        (["--task", 1, "--dtype", "fp7"], "unknown dtype"),
        (["--task", 1, "--start", "LAW"], "is not an adapter of this task"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_clear_line(shell: Shell, served: Served, words: list[Any], said: str) -> None:
    words = [served.data if word == "LAW" else word for word in words]
    common: list[Any] = ["--node", served.url, "--data", served.data]
    if "--base" not in words:
        common += ["--base", served.base]
    ran = shell("score", served.blob(served.chain.result_roots[0]), *common, *words)
    assert (ran.code, len(ran.error_lines)) == (1, 1), ran.err
    assert said in ran.err
