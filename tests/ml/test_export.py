"""The exported folder loads with stock peft and has the same loss; what a plain LoRA cannot carry is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ml.adapter import GlobalAdapter
from ml.export import Card, export_peft, import_peft
from ml.factors import make_global_factors
from ml.score import ScoringBase
from ml.spec import AdapterSpec, make_spec
from tests.ml.support import is_equal, make_global

SAMPLE = ["def f(x):\n    return x + 1\n" * 8, "Über naïve café — 漢字 🙂", "line\u2028separator and more words " * 3]
CARD = Card("Three domains", "tiny", "apache-2.0", {"code": (1_400_000, 1_139_000)}, "Task 1, round 3.")


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    modules = ("q_proj", "down_proj")
    return make_spec(tiny_dir, "ab" * 32, rank=4, alpha=8, target_modules=modules, a_seed=b"task", update_step_log2=-9)


@pytest.fixture(scope="module")
def adapter(spec: AdapterSpec) -> GlobalAdapter:
    return make_global(spec, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path, spec: AdapterSpec, adapter: GlobalAdapter) -> Path:
    path = tmp_path_factory.mktemp("export") / "adapter"
    export_peft(adapter, spec, tiny_dir, path, card=CARD, sample=SAMPLE)
    return path


def run_check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As a stranger would: another working directory, nothing of this project on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", str(folder / "check.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_shipped_script_finds_the_recorded_loss(folder: Path) -> None:
    result = run_check(folder)
    assert result.returncode == 0, result.stderr
    off = float(result.stdout.rsplit("off by ", 1)[1])
    assert off < 1e-4


def test_the_shipped_script_notices_another_adapter(
    folder: Path, tmp_path: Path, adapter: GlobalAdapter, spec: AdapterSpec
) -> None:
    from safetensors.numpy import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: -values if "lora_B" in name else values for name, values in tensors.items()},
        tmp_path / "adapter_model.safetensors",
    )
    assert run_check(tmp_path).returncode == 1


def test_the_shipped_script_notices_another_base(folder: Path, tiny_dir: Path, tmp_path: Path) -> None:
    for file in tiny_dir.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    result = run_check(folder, str(tmp_path))
    assert result.returncode == 1
    assert "is not the file this adapter was made for" in result.stdout


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 on transformers 5.23
def test_stock_peft_holds_the_exact_tensors(
    folder: Path, tiny_dir: Path, spec: AdapterSpec, adapter: GlobalAdapter
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_dir, dtype=torch.float32), folder)
    factors = make_global_factors(adapter, spec)
    assert factors is not None
    for module in spec.modules:
        layer = model.get_base_model().get_submodule(module)
        assert np.array_equal(layer.lora_B["default"].weight.detach().numpy(), factors[module])
        assert layer.scaling["default"] == 2.0


def test_the_card_names_the_exact_base(folder: Path, spec: AdapterSpec) -> None:
    card = (folder / "README.md").read_text()
    assert spec.base_hash in card
    assert "model.safetensors" in card
    assert "| code | 1.400 | 1.139 |" in card
    recorded = json.loads((folder / "check.json").read_text())
    assert all(item["sha256"] in card for item in recorded["base_files"])


def test_a_loaded_base_is_used_when_given(
    tmp_path: Path, tiny_dir: Path, spec: AdapterSpec, adapter: GlobalAdapter, folder: Path
) -> None:
    base = ScoringBase.load(tiny_dir, spec, "fp32")
    loss = export_peft(adapter, spec, tiny_dir, tmp_path, card=CARD, sample=SAMPLE, scoring_base=base)
    assert loss == pytest.approx(json.loads((folder / "check.json").read_text())["bits_per_byte"], abs=1e-9)


def test_an_exported_adapter_comes_back_exactly(folder: Path, spec: AdapterSpec, adapter: GlobalAdapter) -> None:
    assert is_equal(import_peft(folder, spec), adapter)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"use_dora": True}, "DoRA rescales"),
        ({"use_rslora": True}, "rslora scales by"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save holds whole modules"),
        ({"trainable_token_indices": [1]}, "modules_to_save holds whole modules"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_bias": True}, "trained biases"),
        ({"rank_pattern": {"q_proj": 2}}, "differ by module"),
        ({"r": 16}, "rank 16 and alpha 8, the task has 4 and 8"),
        ({"peft_type": "IA3"}, "only LORA can be imported"),
    ],
)
def test_what_a_plain_lora_cannot_carry_is_refused(
    change: dict[str, Any], sentence: str, folder: Path, tmp_path: Path, spec: AdapterSpec
) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **change}))
    (tmp_path / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=sentence):
        import_peft(tmp_path, spec)


def test_an_adapter_off_the_grid_or_of_another_task_is_refused(folder: Path, tmp_path: Path, spec: AdapterSpec) -> None:
    from dataclasses import replace

    from safetensors.numpy import load_file, save_file

    with pytest.raises(ValueError, match="is not this task's fixed A"):
        import_peft(folder, replace(spec, a_seed=b"another"))
    tensors = load_file(folder / "adapter_model.safetensors")
    name = f"base_model.model.{spec.modules[0]}.lora_B.weight"
    save_file({**tensors, name: tensors[name] + np.float32(1e-7)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
    with pytest.raises(ValueError, match="is not on the task's grid"):
        import_peft(tmp_path, spec)


def test_an_empty_sample_is_refused(tmp_path: Path, tiny_dir: Path, spec: AdapterSpec, adapter: GlobalAdapter) -> None:
    with pytest.raises(ValueError, match="the sample needs at least one text"):
        export_peft(adapter, spec, tiny_dir, tmp_path, card=CARD, sample=["", "ab"])
