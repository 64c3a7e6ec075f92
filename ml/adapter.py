"""Adapters as files: canonical safetensors, so that equal tensors are equal bytes and have one root.

Layout (safetensors format): 8 bytes little-endian header length, a JSON header padded with spaces to a multiple of 8,
then the tensors. Canonical here means: header keys sorted, no white space inside, tensors in the order of their names
without holes, metadata of strings only. An update holds int8 B factors, a global adapter int32 B factors; A is fixed by
the task and never travels.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ml.spec import GLOBAL_LIMIT, AdapterSpec

Array = np.ndarray[Any, Any]
Update = dict[str, Array]
"""Module path -> int8 (out_features, rank), in steps of 2**update_step_log2."""
GlobalAdapter = dict[str, Array]
"""Module path -> int32 (out_features, rank), in steps of 2**grid_step_log2."""
Manifest = dict[str, str]

MAX_HEADER_BYTES = 2**20
DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4}
DTYPE_BYTES |= {"F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
DTYPES: dict[str, np.dtype[Any]] = {"I8": np.dtype("i1"), "I32": np.dtype("<i4"), "F32": np.dtype("<f4")}
"""What we write. Readers refuse everything else."""


class Malformed(ValueError):
    """A file that is not the adapter it should be; the sentence goes on the ballot as the reason."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a header; `start` and `end` count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    tensors: dict[str, TensorEntry]
    manifest: Manifest
    data_start: int


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
    _write(path, {name: _as_array(values, np.int8) for name, values in update.items()}, manifest)


def write_global(path: Path, adapter: Mapping[str, Any], manifest: Mapping[str, str]) -> None:
    """Write a global adapter in canonical bytes, whole or not at all."""
    arrays = {name: _as_array(values, np.int32) for name, values in adapter.items()}
    for name, values in arrays.items():
        if values.size and max(int(values.max()), -int(values.min())) >= GLOBAL_LIMIT:
            raise ValueError(f"{name} exceeds {GLOBAL_LIMIT} grid steps: float32 would not be exact")
    _write(path, arrays, manifest)


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


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write any tensors of known dtypes canonically (the exported float32 folder uses this too)."""
    _write(path, dict(tensors), metadata)


def encode_header(entries: Mapping[str, TensorEntry], manifest: Mapping[str, str]) -> bytes:
    """The one header of these tensors and this manifest, length prefix and padding included."""
    document: dict[str, Any] = {
        name: {"data_offsets": [entry.start, entry.end], "dtype": entry.dtype, "shape": list(entry.shape)}
        for name, entry in entries.items()
    }
    document["__metadata__"] = dict(manifest)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_header(path: Path) -> Header:
    """The strictly parsed header: canonical bytes only, tensors contiguous, file ends with the last one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            refuse(f"file of {size} bytes is too short for a header")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            refuse(f"header of {length} bytes exceeds {MAX_HEADER_BYTES}")
        text = file.read(length)
    if len(text) < length:
        refuse(f"truncated: header of {length} bytes in a file of {size}")
    document = _parse_json(text)
    manifest = _take_manifest(document)
    entries = {name: _parse_entry(name, value) for name, value in sorted(document.items())}
    _check_contiguous(entries, size - 8 - length)
    if encode_header(entries, manifest) != prefix + text:
        refuse("header is not canonical: keys sorted, no white space, padded with spaces to 8 bytes")
    return Header(entries, manifest, 8 + length)


def map_tensors(path: Path, header: Header) -> Iterator[tuple[str, Array]]:
    """(name, copy-on-write array) of each tensor; only touched pages are read."""
    data = np.memmap(path, mode="c", offset=0)
    for name, entry in header.tensors.items():
        raw = data[header.data_start + entry.start : header.data_start + entry.end]
        yield name, np.asarray(raw).view(DTYPES[entry.dtype]).reshape(entry.shape)


def check_tensors(header: Header, spec: AdapterSpec, dtype: str) -> None:
    """Names, dtype and shapes are exactly those of the spec. Raises Malformed."""
    expected = {module: (out, spec.rank) for module, out, _ in spec.shapes}
    missing, extra = sorted(expected.keys() - header.tensors.keys()), sorted(header.tensors.keys() - expected.keys())
    if extra:
        refuse(f"{len(extra)} unexpected tensors, first {_clip(extra[0])}")
    if missing:
        refuse(f"{len(missing)} missing tensors, first {_clip(missing[0])}")
    for name, entry in header.tensors.items():
        if entry.dtype != dtype:
            refuse(f"tensor {name} has dtype {_clip(entry.dtype)}, expected {dtype}")
        if entry.shape != expected[name]:
            refuse(f"tensor {name} has shape {list(entry.shape)[:4]}, expected {list(expected[name])}")


def refuse(reason: str) -> NoReturn:
    raise Malformed(reason)


def _as_array(values: Any, dtype: type[np.generic]) -> Array:
    array = np.asarray(values)
    if array.dtype != np.dtype(dtype) or array.ndim != 2:
        raise ValueError(f"expected a {np.dtype(dtype).name} matrix, found {array.dtype} of {array.ndim} dimensions")
    return array


def _write(path: Path, tensors: Mapping[str, Array], manifest: Mapping[str, str]) -> None:
    names = {dtype: name for name, dtype in DTYPES.items()}
    entries, offset = {}, 0
    for name, values in sorted(tensors.items()):
        entries[name] = TensorEntry(names[values.dtype], values.shape, offset, offset + values.nbytes)
        offset += values.nbytes
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(encode_header(entries, manifest))
        for _, values in sorted(tensors.items()):
            file.write(np.ascontiguousarray(values, DTYPES[names[values.dtype]]).data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _read(path: Path, spec: AdapterSpec, dtype: str) -> tuple[dict[str, Array], Manifest]:
    header = read_header(path)
    check_tensors(header, spec, dtype)
    return dict(map_tensors(path, header)), header.manifest


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            text.decode("ascii"), object_pairs_hook=_no_duplicates, parse_float=_no_float, parse_constant=_no_float
        )
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"header is not JSON: {_clip(str(error))}") from None
    if not isinstance(document, dict):
        refuse("header is not a JSON object")
    return document


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        refuse("header names a key twice")
    return found


def _no_float(text: str) -> NoReturn:
    refuse(f"header holds {_clip(text)}: only integers are allowed")


def _take_manifest(document: dict[str, Any]) -> Manifest:
    if "__metadata__" not in document:
        refuse("header has no manifest (__metadata__)")
    manifest = document.pop("__metadata__")
    if not isinstance(manifest, dict) or not all(isinstance(value, str) for value in manifest.values()):
        refuse("manifest is not a map of strings")
    return manifest


def _parse_entry(name: str, value: Any) -> TensorEntry:
    if not isinstance(value, dict) or value.keys() != {"data_offsets", "dtype", "shape"}:
        refuse(f"tensor {_clip(name)} lacks dtype, shape or data_offsets, or has more")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        refuse(f"tensor {_clip(name)} has unknown dtype {_clip(str(dtype))}")
    if not _is_counts(shape) or len(shape) > 8 or not _is_counts(offsets) or len(offsets) != 2:
        refuse(f"tensor {_clip(name)} has a broken shape or data_offsets")
    entry = TensorEntry(dtype, tuple(shape), *offsets)
    needed = DTYPE_BYTES[dtype]
    for size in shape:
        needed *= size
    if entry.end - entry.start != needed:
        refuse(f"tensor {_clip(name)} spans {entry.end - entry.start} bytes, its shape needs {needed}")
    return entry


def _is_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _check_contiguous(entries: Mapping[str, TensorEntry], data_bytes: int) -> None:
    position = 0
    for name, entry in entries.items():
        if entry.start != position:
            what = "overlaps the tensor before it" if entry.start < position else "leaves a hole before it"
            refuse(f"tensor {_clip(name)} {what}")
        position = entry.end
    if position > data_bytes:
        refuse(f"truncated: tensors need {position} bytes, the file holds {data_bytes}")
    if position < data_bytes:
        refuse(f"{data_bytes - position} bytes after the last tensor")


def _clip(text: str) -> str:
    """Others' text, short and printable."""
    return ascii(text)[1:-1][:60]
