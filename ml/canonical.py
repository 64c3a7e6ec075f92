"""The file format of adapters: safetensors in one canonical form, so that equal tensors are equal bytes.

Layout (safetensors format): 8 bytes little-endian header length, a JSON header padded with spaces to a multiple of 8,
then the tensors. Canonical here means: header keys sorted, no white space inside, tensors in the order of their names
without holes, metadata of strings only. Readers are strict: nothing but these bytes passes. No torch, no pickle.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

Array = np.ndarray[Any, Any]
Manifest = dict[str, str]
Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> (dtype, shape)."""

MAX_HEADER_BYTES = 2**20
SPARE_BYTES = 2**26
"""Left free on a disk: a full one stops databases and logs beside us."""
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


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write tensors of known dtypes canonically, whole or not at all (the exported float32 folder uses this too)."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    layout = {name: (names[values.dtype], values.shape) for name, values in tensors.items()}
    write_stream(path, layout, sorted(tensors.items()), metadata)


def write_stream(path: Path, layout: Layout, tensors: Iterable[tuple[str, Array]], manifest: Mapping[str, str]) -> None:
    """Header first, then each tensor as it comes: none is held. Whole or not at all."""
    entries, offset = {}, 0
    for name, (dtype, shape) in sorted(layout.items()):
        size = DTYPE_BYTES[dtype] * math.prod(shape)
        entries[name] = TensorEntry(dtype, shape, offset, offset + size)
        offset += size
    require_space(path.parent, offset)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(encode_header(entries, manifest))
            for (name, entry), (given, values) in zip(entries.items(), tensors, strict=True):
                assert (given, values.shape) == (name, entry.shape), f"{given} {values.shape} came for {name}"
                file.write(np.ascontiguousarray(values, DTYPES[entry.dtype]).data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise OSError (ENOSPC) with both figures when the folder's disk has less than this and a little more free."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes + SPARE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"{needed_bytes / 1e6:,.0f} MB are to be written to {folder}, {free_bytes / 1e6:,.0f} MB are free: "
            f"make room, keeping {SPARE_BYTES / 1e6:,.0f} MB spare",
        )


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


class TensorFile(Mapping[str, Array]):
    """An adapter's tensors, each read from its file when it is asked for: what stands in memory is the caller's.

    For adapters of gigabytes, whose mapped pages would fill the memory. The file must not change meanwhile.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path, self._header = path, header

    @property
    def manifest(self) -> Manifest:
        return self._header.manifest

    def __getitem__(self, name: str) -> Array:
        entry = self._header.tensors[name]
        with self._path.open("rb", buffering=0) as file:
            values = np.fromfile(
                file, DTYPES[entry.dtype], math.prod(entry.shape), offset=self._header.data_start + entry.start
            )
        if values.size != math.prod(entry.shape):
            refuse(f"truncated while it was read: tensor {name} of {self._path.name}")
        return values.reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header.tensors)

    def __len__(self) -> int:
        return len(self._header.tensors)


def refuse(reason: str) -> NoReturn:
    raise Malformed(reason)


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            text.decode("ascii"), object_pairs_hook=_no_duplicates, parse_float=_no_float, parse_constant=_no_float
        )
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"header is not JSON: {clip(str(error))}") from None
    if not isinstance(document, dict):
        refuse("header is not a JSON object")
    return document


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        refuse("header names a key twice")
    return found


def _no_float(text: str) -> NoReturn:
    refuse(f"header holds {clip(text)}: only integers are allowed")


def _take_manifest(document: dict[str, Any]) -> Manifest:
    if "__metadata__" not in document:
        refuse("header has no manifest (__metadata__)")
    manifest = document.pop("__metadata__")
    if not isinstance(manifest, dict) or not all(isinstance(value, str) for value in manifest.values()):
        refuse("manifest is not a map of strings")
    return manifest


def _parse_entry(name: str, value: Any) -> TensorEntry:
    if not isinstance(value, dict) or value.keys() != {"data_offsets", "dtype", "shape"}:
        refuse(f"tensor {clip(name)} lacks dtype, shape or data_offsets, or has more")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        refuse(f"tensor {clip(name)} has unknown dtype {clip(str(dtype))}")
    if not _is_counts(shape) or len(shape) > 8 or not _is_counts(offsets) or len(offsets) != 2:
        refuse(f"tensor {clip(name)} has a broken shape or data_offsets")
    entry = TensorEntry(dtype, tuple(shape), *offsets)
    needed = DTYPE_BYTES[dtype]
    for size in shape:
        needed *= size
    if entry.end - entry.start != needed:
        refuse(f"tensor {clip(name)} spans {entry.end - entry.start} bytes, its shape needs {needed}")
    return entry


def _is_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _check_contiguous(entries: Mapping[str, TensorEntry], data_bytes: int) -> None:
    position = 0
    for name, entry in entries.items():
        if entry.start != position:
            what = "overlaps the tensor before it" if entry.start < position else "leaves a hole before it"
            refuse(f"tensor {clip(name)} {what}")
        position = entry.end
    if position > data_bytes:
        refuse(f"truncated: tensors need {position} bytes, the file holds {data_bytes}")
    if position < data_bytes:
        refuse(f"{data_bytes - position} bytes after the last tensor")


def clip(text: str) -> str:
    """Others' text, short and printable."""
    return ascii(text)[1:-1][:60]
