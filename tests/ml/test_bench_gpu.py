"""The script for a machine with a GPU, on the tiny shape and a CPU: every stage runs and records, or says why not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import main
from bench.shapes import SHAPES, build_shaped, count_parameters, count_train_flops
from bench.training import measure_training
from bench.verdicts import compare_judges


def run(out: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results by name, notes)."""
    assert main(["--device", "cpu", "--shapes", "tiny-shaped", "--out", str(out), *options]) == 0
    document = json.loads(out.read_text())
    return {result["name"]: result for result in document["results"]}, document["notes"]


def test_every_stage_records_beside_what_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In two runs over one file, as limited time makes it; the second without 4 bit."""
    first, notes = run(tmp_path / "gpu.json", "--stages", "machine,train,judge,aggregate,task")
    assert not [name for name in notes if name.endswith("failed")], notes
    assert notes["task"].startswith("skipped")
    assert first["train_tokens_per_s/tiny-shaped/deterministic"]["median"] > 0
    for suffix in ("", "/no_checkpointing"):
        trained = first[f"train_tokens_per_s/tiny-shaped{suffix}"]
        assert trained["median"] > 0
        assert trained["peer"]["ratio"] > 0
        assert trained["notes"]["format"] == "nf4, double quantisation"
    assert notes["memory/tiny-shaped/b_bytes"] == 4 * 16 * 2 * (3 * 64 + 2 * 32 + 2 * 128)
    assert {"aggregate_s/mean_norm_clip/10xtiny-shaped", "aggregate_s/coordinate_median/10xtiny-shaped"} <= first.keys()
    assert first["score_tokens_per_s/tiny-shaped"]["median"] > 0
    assert notes["memory/tiny-shaped/planned_bytes"] > notes["memory/tiny-shaped/b_bytes"]
    told = capsys.readouterr().out
    assert "times the plain loop" in told
    assert "open: task: skipped" in told
    judged = first.pop("score_tokens_per_s/tiny-shaped")
    second, notes = run(tmp_path / "gpu.json", "--stages", "machine,judge,nonsense", "--bf16")
    assert second.keys() == first.keys() | {"score_tokens_per_s/tiny-shaped"}
    assert second["score_tokens_per_s/tiny-shaped"] != judged
    assert notes["4 bit"].startswith("skipped")
    assert "KeyError" in notes["nonsense/failed"]


def test_the_script_begins_without_the_chain_s_packages() -> None:
    """A GPU's machine has torch and what was carried there: what only a node needs must not stop the other stages."""
    absent = ("fastapi", "httpx", "msgspec", "nacl", "sqlalchemy", "uvicorn")
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "sys.argv = ['bench', 'gpu', '--help']; runpy.run_module('bench', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--budget-s" in done.stdout


def test_the_shapes_are_those_of_the_models_they_are_named_after() -> None:
    """Llama 3.2 1B, Llama 3 8B and 70B: parameters as published."""
    published = {"1B-shaped": 1_235_814_400, "8B-shaped": 8_030_261_248, "70B-shaped": 70_553_706_496}
    assert {name: count_parameters(name)[0] for name in published} == published
    assert count_train_flops("70B-shaped", 2_048) == pytest.approx(4 * 69.5e9 + 6 * 80 * 8_192 * 2_048, rel=1e-3)


def test_a_shaped_model_is_built_whole(tmp_path: Path) -> None:
    """As many parameters as its name says, in bf16, and a loss near that of guessing."""
    import torch

    model = build_shaped("tiny-shaped", "cpu", four_bit=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters("tiny-shaped")[0]
    tokens = torch.arange(64).reshape(1, 64)
    with torch.no_grad():
        loss = float(model(input_ids=tokens, labels=tokens).loss)
    assert loss == pytest.approx(torch.tensor(SHAPES["tiny-shaped"]["vocab_size"]).log().item(), abs=0.3)


def test_two_judges_on_one_device_agree_to_the_bit() -> None:
    """The comparison itself: harmful and helpful adapters are both in the set, and nothing differs."""
    verdicts, figures = compare_judges("tiny", "cpu", "fp32")
    assert verdicts.median == figures.median == 0
    rows = verdicts.notes["cpu_ppm_device_ppm_se_ppm"]
    assert len(rows) == 20
    assert all(one == other for one, other, *_ in rows.values())
    assert rows["nothing/code"][0] == 0
    assert rows["honest-code/code"][0] < 0 < rows["negated-code/code"][0]


def test_training_and_judging_are_measured_beside_the_plain_loop() -> None:
    """One run on the tiny model: every figure stands beside that of transformers and peft in the same run."""
    results = measure_training("tiny", runs=1, steps=1)
    names = [f"{what}_tokens_per_s{suffix}" for suffix in ("", "/all_linear") for what in ("train", "score")]
    assert [result.name for result in results] == names
    assert all(result.peer and result.peer["ratio_median"] > 0 for result in results)
