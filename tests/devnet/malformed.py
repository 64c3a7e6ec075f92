"""Files that a hostile trainer publishes in the place of an adapter, each with the reason that judges must give.

Each maker gets the bytes of a good update and its parts, and returns other bytes.
"""

import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from ml.adapter import Update, read_update, write_update
from ml.canonical import Array, TensorEntry, encode_header
from ml.spec import AdapterSpec


@dataclass(frozen=True)
class Good:
    """What the hostile trainer could have sent."""

    data: bytes
    update: Update
    manifest: dict[str, str]
    spec: AdapterSpec
    folder: Path

    def write(self, update: Update, **manifest: str) -> bytes:
        path = self.folder / "made.safetensors"
        write_update(path, update, {**self.manifest, **manifest})
        return path.read_bytes()

    @property
    def first(self) -> str:
        return min(self.update)

    def header(self) -> tuple[dict[str, object], bytes]:
        """(parsed header, tensor bytes)."""
        end = 8 + int.from_bytes(self.data[:8], "little")
        return json.loads(self.data[8:end]), self.data[end:]


Make = Callable[[Good], bytes]


def raw(header: bytes, tensors: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + tensors


def dump(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def floats(good: Good, value: float) -> bytes:
    """The same tensors as float32, one of them with `value` in it."""
    entries, parts, offset = {}, [], 0
    for name, values in sorted(good.update.items()):
        array = values.astype("<f4")
        array[0, 0] = value
        entries[name] = TensorEntry("F32", array.shape, offset, offset + array.nbytes)
        parts.append(array.tobytes())
        offset += array.nbytes
    return encode_header(entries, good.manifest) + b"".join(parts)


def duplicate_keys(good: Good) -> bytes:
    header, tensors = good.header()
    text = dump(header)
    return raw(text[:-1] + b"," + dump({good.first: header[good.first]})[1:], tensors)


def overlap(good: Good) -> bytes:
    header, tensors = good.header()
    second = sorted(good.update)[1]
    entry = dict(header[second])  # type: ignore[call-overload]
    start, end = entry["data_offsets"]
    entry["data_offsets"] = [start - 8, end - 8]
    return raw(dump({**header, second: entry}), tensors[:-8])


def zip_of(good: Good) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), good.data)
    return buffer.getvalue()


def changed(good: Good, column: int, value: int) -> bytes:
    update = {name: values.copy() for name, values in good.update.items()}
    update[good.first][0, column] = value
    return good.write(update)


def loud(values: Array) -> Array:
    """As large as int8 allows, in signs that do not cancel or add up, whatever the fixed A is."""
    signs = np.random.default_rng(0).choice(np.array([-127, 127], np.int8), values.shape)
    return np.asarray(signs, np.int8)


class Bomb:
    """Would run code if anything unpickled it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


MAKERS: dict[str, tuple[Make, str]] = {
    "truncated tensors": (lambda good: good.data[:-1], "truncated: tensors need"),
    "truncated header": (lambda good: good.data[:40], "truncated: header of"),
    "trailing bytes": (lambda good: good.data + b"\0" * 8, "8 bytes after the last tensor"),
    "too short": (lambda good: b"\x08", "file of 1 bytes is too short for a header"),
    "header bomb": (lambda good: (2**62).to_bytes(8, "little") + b"{}", "header of 4611686018427387904 bytes exceeds"),
    "wrong shapes": (lambda good: good.write({n: v.reshape(-1, 8) for n, v in good.update.items()}), "has shape"),
    "wrong dtype": (lambda good: floats(good, 1.0), "has dtype F32, expected I8"),
    "NaN": (lambda good: floats(good, float("nan")), "holds NaN"),
    "Inf": (lambda good: floats(good, float("-inf")), "holds Inf"),
    "extra tensor": (
        lambda good: good.write({**good.update, "zzz": np.ones((1, 1), np.int8)}),
        "1 unexpected tensors, first zzz",
    ),
    "missing tensor": (
        lambda good: good.write({n: v for n, v in good.update.items() if n != good.first}),
        "1 missing tensors",
    ),
    "pickle": (lambda good: pickle.dumps(Bomb()) + good.data, "a Python pickle"),
    "zip": (zip_of, "a zip archive"),
    "foreign base": (lambda good: good.write(good.update, spec_hash="00" * 32), "for spec_hash, expected"),
    "another trainer": (lambda good: good.write(good.update, trainer="flk1someoneelse"), "for trainer, expected"),
    "another round": (lambda good: good.write(good.update, round="99"), "manifest says '99' for round"),
    "extra manifest field": (lambda good: good.write(good.update, note="hello"), "unexpected field 'note'"),
    "no manifest": (
        lambda good: raw(dump({n: e for n, e in good.header()[0].items() if n in good.update}), good.header()[1]),
        "header has no manifest",
    ),
    "duplicate keys": (duplicate_keys, "header names a key twice"),
    "overlapping tensors": (overlap, "overlaps the tensor before it"),
    "white space": (
        lambda good: raw(json.dumps(good.header()[0], sort_keys=True).encode(), good.header()[1]),
        "header is not canonical",
    ),
    "not JSON": (lambda good: raw(b"{" * 64, good.header()[1]), "header is not JSON"),
    "zero update": (lambda good: good.write({n: v * 0 for n, v in good.update.items()}), "the update is zero"),
    "over the norm cap": (
        lambda good: good.write({n: loud(v) for n, v in good.update.items()}),
        "exceeds the task's cap of",
    ),
    "-128": (lambda good: changed(good, 0, -128), "holds -128"),
}
"""Kind -> (maker, words of the reason). Where a file has two flaws the graver one is named."""


def make_good(path: Path, spec: AdapterSpec) -> Good:
    """From a well-formed file."""
    update, manifest = read_update(path, spec)
    return Good(path.read_bytes(), update, manifest, spec, path.parent)
