"""Adapters as files: canonical safetensors (ml/canonical.py), so that equal tensors have one root.

An update holds int8 B factors, a global adapter int32 B factors; A is fixed by the task and never travels.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ml.canonical import (
    Array,
    Header,
    Manifest,
    TensorFile,
    clip,
    map_tensors,
    read_header,
    refuse,
    write_stream,
    write_tensors,
)
from ml.spec import GLOBAL_LIMIT, AdapterSpec

Update = dict[str, Array]
"""Module path -> int8 (out_features, rank), in steps of 2**update_step_log2."""
GlobalAdapter = dict[str, Array]
"""Module path -> int32 (out_features, rank), in steps of 2**grid_step_log2."""


def hash_spec(spec: AdapterSpec) -> str:
    """Hex sha256 over everything a task fixes about its adapters; shapes follow from the base."""
    facts = {
        "a_seed": spec.a_seed.hex(),
        "alpha": spec.alpha,
        "base_hash": spec.base_hash,
        "mode": spec.mode,
        "rank": spec.rank,
        "target_modules": sorted(spec.target_modules),
        "update_step_log2": spec.update_step_log2,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make_update_manifest(spec: AdapterSpec, *, task: int, round: int, trainer: str, base_root: str) -> Manifest:
    """The manifest of a trainer's update. It names the trainer, so another's bytes have another root.

    `base_root` is the hex root of the global adapter it was trained from, empty for the bare base.
    """
    return {
        "base_root": base_root,
        "kind": "update",
        "round": str(round),
        "spec_hash": hash_spec(spec),
        "task": str(task),
        "trainer": trainer,
    }


def make_global_manifest(spec: AdapterSpec, *, task: int, round: int) -> Manifest:
    """The manifest of a global adapter: nothing in it depends on who computed it."""
    return {"kind": "global", "round": str(round), "spec_hash": hash_spec(spec), "task": str(task)}


def write_update(path: Path, update: Mapping[str, Any], manifest: Mapping[str, str]) -> None:
    """Write an update in canonical bytes, whole or not at all. Torch tensors on the CPU are accepted."""
    write_tensors(path, {name: _as_array(values, np.int8) for name, values in update.items()}, manifest)


def write_global_stream(
    path: Path, tensors: Iterable[tuple[str, Array]], spec: AdapterSpec, manifest: Mapping[str, str]
) -> None:
    """The same bytes as `write_global`, from int32 matrices that come one at a time in the order of their names.

    Raises OSError (ENOSPC) before anything is written when the disk is too small, OverflowError for a value that
    float32 would not hold exactly; then no file is left.
    """
    shapes = {module: (out, spec.rank) for module, out, _ in spec.shapes}
    write_stream(path, {name: ("I32", shape) for name, shape in shapes.items()}, map(_check_global, tensors), manifest)


def write_global(path: Path, adapter: Mapping[str, Any], manifest: Mapping[str, str]) -> None:
    """Write a global adapter in canonical bytes, whole or not at all."""
    arrays = {name: _as_array(values, np.int32) for name, values in adapter.items()}
    for name, values in arrays.items():
        if values.size and max(int(values.max()), -int(values.min())) >= GLOBAL_LIMIT:
            raise ValueError(f"{name} exceeds {GLOBAL_LIMIT} grid steps: float32 would not be exact")
    write_tensors(path, arrays, manifest)


def read_update(path: Path, spec: AdapterSpec) -> tuple[Update, Manifest]:
    """(update, manifest). Arrays are copy-on-write maps of the file. Raises Malformed."""
    return _read(path, spec, "I8")


def read_global(path: Path, spec: AdapterSpec) -> tuple[GlobalAdapter, Manifest]:
    """(global adapter, manifest). Raises Malformed, also for values that float32 cannot hold."""
    adapter, manifest = _read(path, spec, "I32")
    for name, values in adapter.items():
        if max(int(values.max()), -int(values.min())) >= GLOBAL_LIMIT:
            refuse(f"tensor {name} exceeds {GLOBAL_LIMIT} grid steps")
    return adapter, manifest


def strip_manifest(path: Path, out: Path, spec: AdapterSpec) -> None:
    """The same update without a word about its author: what the scoring code gets to see."""
    update, _ = read_update(path, spec)
    write_update(out, update, {"kind": "update", "spec_hash": hash_spec(spec)})


def zero_global(spec: AdapterSpec) -> GlobalAdapter:
    """The global adapter before the first round."""
    return {module: np.zeros((out, spec.rank), np.int32) for module, out, _ in spec.shapes}


def open_update(path: Path, spec: AdapterSpec) -> TensorFile:
    """An update read piece by piece; names, dtype and shapes are checked now. Raises Malformed."""
    return _open(path, spec, "I8")


def open_global(path: Path, spec: AdapterSpec) -> TensorFile:
    """A global adapter read piece by piece; its values are for the reader to check. Raises Malformed."""
    return _open(path, spec, "I32")


def _open(path: Path, spec: AdapterSpec, dtype: str) -> TensorFile:
    header = read_header(path)
    check_tensors(header, spec, dtype)
    return TensorFile(path, header)


def check_tensors(header: Header, spec: AdapterSpec, dtype: str) -> None:
    """Names, dtype and shapes are exactly those of the spec. Raises Malformed."""
    expected = {module: (out, spec.rank) for module, out, _ in spec.shapes}
    missing, extra = sorted(expected.keys() - header.tensors.keys()), sorted(header.tensors.keys() - expected.keys())
    if extra:
        refuse(f"{len(extra)} unexpected tensors, first {clip(extra[0])}")
    if missing:
        refuse(f"{len(missing)} missing tensors, first {clip(missing[0])}")
    for name, entry in header.tensors.items():
        if entry.dtype != dtype:
            refuse(f"tensor {name} has dtype {clip(entry.dtype)}, expected {dtype}")
        if entry.shape != expected[name]:
            refuse(f"tensor {name} has shape {list(entry.shape)[:4]}, expected {list(expected[name])}")


def _as_array(values: Any, dtype: type[np.generic]) -> Array:
    array = np.asarray(values)
    if array.dtype != np.dtype(dtype) or array.ndim != 2:
        raise ValueError(f"expected a {np.dtype(dtype).name} matrix, found {array.dtype} of {array.ndim} dimensions")
    return array


def _check_global(item: tuple[str, Array]) -> tuple[str, Array]:
    name, values = item
    if values.size and max(int(values.max()), -int(values.min())) >= GLOBAL_LIMIT:
        raise OverflowError(f"{name} would exceed {GLOBAL_LIMIT} grid steps: float32 would not be exact")
    return item


def _read(path: Path, spec: AdapterSpec, dtype: str) -> tuple[dict[str, Array], Manifest]:
    header = read_header(path)
    check_tensors(header, spec, dtype)
    return dict(map_tensors(path, header)), header.manifest
