"""Adapters as files: equal tensors are equal bytes, and what is read is what was written."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ml.adapter import (
    hash_spec,
    make_global_manifest,
    make_update_manifest,
    read_global,
    read_update,
    strip_manifest,
    write_global,
    write_update,
    zero_global,
)
from ml.canonical import Malformed, read_header
from ml.spec import module_shapes
from tests.ml.support import is_equal, make_global, make_small_spec, make_update

SPEC = make_small_spec()
MANIFEST = make_update_manifest(SPEC, task=7, round=2, trainer="flk1trainer", base_root="")


def test_an_update_comes_back_as_it_was_written(tmp_path: Path) -> None:
    update = make_update(SPEC, seed=1)
    write_update(tmp_path / "u", update, MANIFEST)
    found, manifest = read_update(tmp_path / "u", SPEC)
    assert is_equal(found, update)
    assert manifest == MANIFEST


def test_a_global_adapter_comes_back_as_it_was_written(tmp_path: Path) -> None:
    adapter = make_global(SPEC, seed=1)
    write_global(tmp_path / "g", adapter, make_global_manifest(SPEC, task=7, round=2))
    assert is_equal(read_global(tmp_path / "g", SPEC)[0], adapter)


def test_the_order_in_which_tensors_are_given_does_not_show(tmp_path: Path) -> None:
    update = make_update(SPEC, seed=1)
    write_update(tmp_path / "a", update, MANIFEST)
    write_update(tmp_path / "b", dict(reversed(update.items())), dict(reversed(MANIFEST.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_bytes_are_pinned(tmp_path: Path) -> None:
    """Golden: another version that writes other bytes would give every adapter another root."""
    update = {module: np.arange(out * 4, dtype=np.int64).reshape(out, 4) % 100 for module, out, _ in SPEC.shapes}
    write_update(tmp_path / "u", {name: values.astype(np.int8) for name, values in update.items()}, MANIFEST)
    data = (tmp_path / "u").read_bytes()
    assert data[8:].startswith(b'{"__metadata__":{"base_root":"","kind":"update",')
    assert hashlib.sha256(data).hexdigest() == "33e753937cc48e4427a04fcc3de52f84b691ef3fd5dab091d5cf47a53fbd21f4"


def test_the_safetensors_library_reads_our_files(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    update = make_update(SPEC, seed=3)
    write_update(tmp_path / "u", update, MANIFEST)
    assert is_equal(load_file(tmp_path / "u"), update)


def test_two_trainers_with_equal_tensors_have_different_bytes(tmp_path: Path) -> None:
    update = make_update(SPEC, seed=1)
    write_update(tmp_path / "a", update, MANIFEST)
    write_update(tmp_path / "b", update, {**MANIFEST, "trainer": "flk1other"})
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_stripped_update_says_nothing_of_its_author(tmp_path: Path) -> None:
    update = make_update(SPEC, seed=1)
    write_update(tmp_path / "u", update, MANIFEST)
    strip_manifest(tmp_path / "u", tmp_path / "s", SPEC)
    found, manifest = read_update(tmp_path / "s", SPEC)
    assert is_equal(found, update)
    assert manifest == {"kind": "update", "spec_hash": hash_spec(SPEC)}


def test_writing_through_a_read_array_leaves_the_file_alone(tmp_path: Path) -> None:
    write_update(tmp_path / "u", make_update(SPEC, seed=1), MANIFEST)
    before = (tmp_path / "u").read_bytes()
    found, _ = read_update(tmp_path / "u", SPEC)
    next(iter(found.values()))[:] = 5
    assert (tmp_path / "u").read_bytes() == before


def test_values_beyond_exact_float32_are_refused_both_ways(tmp_path: Path) -> None:
    adapter = zero_global(SPEC)
    next(iter(adapter.values()))[0, 0] = -(2**24)
    with pytest.raises(ValueError, match="float32"):
        write_global(tmp_path / "g", adapter, {})
    assert not list(tmp_path.iterdir())


def test_an_update_is_no_global_adapter(tmp_path: Path) -> None:
    write_update(tmp_path / "u", make_update(SPEC, seed=1), MANIFEST)
    with pytest.raises(Malformed, match="has dtype I8, expected I32"):
        read_global(tmp_path / "u", SPEC)


def test_a_float_array_is_not_written_as_an_update(tmp_path: Path) -> None:
    update = {name: values.astype(np.float32) for name, values in make_update(SPEC, seed=1).items()}
    with pytest.raises(ValueError, match="int8"):
        write_update(tmp_path / "u", update, MANIFEST)


def test_tensors_stand_at_multiples_of_eight(tmp_path: Path) -> None:
    write_update(tmp_path / "u", make_update(SPEC, seed=1), MANIFEST)
    assert read_header(tmp_path / "u").data_start % 8 == 0


def test_the_spec_hash_names_everything_a_task_fixes() -> None:
    others = (
        make_small_spec(rank=8),
        make_small_spec(alpha=4),
        make_small_spec(a_seed=b"another"),
        make_small_spec(update_step_log2=-12),
        make_small_spec(base_hash="cd" * 32),
        make_small_spec(target_modules=("q_proj",)),
    )
    assert len({hash_spec(spec) for spec in (SPEC, *others)}) == 7


def test_shapes_follow_from_the_config_alone() -> None:
    config = {"hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30}
    shapes = module_shapes({**config, "intermediate_size": 1536}, ("v_proj", "q_proj"))
    assert len(shapes) == 60
    assert shapes[0] == ("model.layers.0.self_attn.q_proj", 576, 576)
    assert shapes[1] == ("model.layers.0.self_attn.v_proj", 192, 576)
    assert list(shapes) == sorted(shapes)
    with pytest.raises(ValueError, match="lacks intermediate_size"):
        module_shapes(config, ("q_proj",))
    with pytest.raises(ValueError, match="choose from"):
        module_shapes({**config, "intermediate_size": 1536}, ("embed_tokens",))
