"""Ingress: the named kinds of malformed adapters, each refused with its reason, and 500 broken ones by chance."""

import io
import json
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.adapter import make_update_manifest, write_update
from ml.canonical import Malformed, write_tensors
from ml.ingress import check_update_file
from ml.norms import norm2
from tests.ml.support import make_small_spec, make_update

SPEC = make_small_spec()
MANIFEST = make_update_manifest(SPEC, task=7, round=2, trainer="flk1trainer", base_root="cc" * 32)
UPDATE = make_update(SPEC, seed=1)
FIRST = SPEC.modules[0]
MAX_BYTES = 10_000


def check(path: Path, norm_cap: int = 0) -> int:
    return check_update_file(path, SPEC, max_bytes=MAX_BYTES, expected_manifest=MANIFEST, norm_cap=norm_cap)


def make_good(path: Path) -> bytes:
    write_update(path, UPDATE, MANIFEST)
    return path.read_bytes()


def with_header(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    length = int.from_bytes(data[:8], "little")
    document = json.loads(data[8 : 8 + length])
    change(document)
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def with_text(data: bytes, old: bytes, new: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].rstrip(b" ")
    assert old in text
    text = text.replace(old, new, 1)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def shift_offsets(document: dict[str, Any], by: int) -> None:
    for name in SPEC.modules[1:]:
        document[name]["data_offsets"] = [at + by for at in document[name]["data_offsets"]]


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"weight": [1, 2]}))
    return buffer.getvalue()


def float_bytes(path: Path, value: float) -> bytes:
    tensors = {name: values.astype(np.float32) for name, values in UPDATE.items()}
    tensors[FIRST][0, 0] = value
    write_tensors(path, tensors, MANIFEST)
    return path.read_bytes()


def tensor_bytes(path: Path, **changes: Any) -> bytes:
    tensors = {**UPDATE, **changes}
    write_tensors(path, {name: values for name, values in tensors.items() if values is not None}, MANIFEST)
    return path.read_bytes()


def manifest_bytes(path: Path, **changes: str) -> bytes:
    write_update(path, UPDATE, {**MANIFEST, **changes})
    return path.read_bytes()


def with_value(value: int) -> dict[str, Any]:
    changed = UPDATE[FIRST].copy()
    changed[0, 0] = value
    return {FIRST: changed}


ZEROS = {name: np.zeros_like(values) for name, values in UPDATE.items()}
KINDS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda p: b"", "file is empty"),
    "five bytes": (lambda p: b"12345", "too short for a header"),
    "truncated in the header": (lambda p: make_good(p)[:100], "truncated: header"),
    "truncated in a tensor": (lambda p: make_good(p)[:-9], "truncated: tensors need"),
    "trailing bytes": (lambda p: make_good(p) + b"\0" * 8, "8 bytes after the last tensor"),
    "oversize": (lambda p: make_good(p) + b"\0" * MAX_BYTES, "exceeds 10000"),
    "endless header": (lambda p: (2**40).to_bytes(8, "little") + b"{", "exceeds 1048576"),
    "a pickle": (lambda p: pickle.dumps({"weight": [1.0] * 40}), "a Python pickle"),
    "a zip": (lambda p: zip_bytes(), "a zip archive"),
    "a GGUF": (lambda p: b"GGUF" + b"\x03\0\0\0" * 9, "a GGUF model"),
    "a gzip": (lambda p: b"\x1f\x8b\x08\0\0\0\0\0" * 9, "a gzip file"),
    "NaN": (lambda p: float_bytes(p, float("nan")), "holds NaN"),
    "Inf": (lambda p: float_bytes(p, float("-inf")), "holds Inf"),
    "finite floats": (lambda p: float_bytes(p, 1.0), "dtype F32, expected I8"),
    "wrong shape": (lambda p: tensor_bytes(p, **{FIRST: UPDATE[FIRST][:-1]}), "has shape [23, 4], expected [24, 4]"),
    "transposed": (lambda p: tensor_bytes(p, **{FIRST: UPDATE[FIRST].T}), "has shape [4, 24]"),
    "extra tensor": (lambda p: tensor_bytes(p, zz=UPDATE[FIRST]), "1 unexpected tensors, first zz"),
    "missing tensor": (lambda p: tensor_bytes(p, **{FIRST: None}), "1 missing tensors"),
    "foreign base": (lambda p: manifest_bytes(p, spec_hash="00" * 32), "for spec_hash, expected"),
    "foreign global adapter": (lambda p: manifest_bytes(p, base_root=""), "says '' for base_root"),
    "another's name": (lambda p: manifest_bytes(p, trainer="flk1other"), "'flk1other' for trainer"),
    "another round": (lambda p: manifest_bytes(p, round="1"), "'1' for round, expected '2'"),
    "another field": (lambda p: manifest_bytes(p, note="hello"), "unexpected field 'note'"),
    "no manifest": (lambda p: with_header(make_good(p), lambda d: d.pop("__metadata__")), "no manifest"),
    "manifest of numbers": (
        lambda p: with_header(make_good(p), lambda d: d["__metadata__"].update(round=2)),
        "not a map of strings",
    ),
    "duplicate key": (lambda p: with_text(make_good(p), b'{"data_offsets"', b'{"dtype":"I8","data_offsets"'), "twice"),
    "white space": (lambda p: with_text(make_good(p), b'":{', b'": {'), "not canonical"),
    "not JSON": (lambda p: with_text(make_good(p), b'":{', b'":'), "not JSON"),
    "NaN as a number": (lambda p: with_text(make_good(p), b'"shape":[24', b'"shape":[NaN'), "only integers"),
    "a float as a size": (lambda p: with_text(make_good(p), b'"shape":[24', b'"shape":[24.0'), "only integers"),
    "a bool as a size": (lambda p: with_text(make_good(p), b'"shape":[24', b'"shape":[true'), "broken shape"),
    "negative offset": (lambda p: with_text(make_good(p), b"[0,", b"[-8,"), "broken shape or data_offsets"),
    "deeply nested": (lambda p: with_text(make_good(p), b'{"__m', b"[" * 5000 + b'{"__m'), "not JSON"),
    "hole": (
        lambda p: with_header(make_good(p), lambda d: shift_offsets(d, 8)) + b"\0" * 8,
        "leaves a hole before it",
    ),
    "overlap": (lambda p: with_header(make_good(p), lambda d: shift_offsets(d, -8)), "overlaps the tensor before it"),
    "unknown dtype": (lambda p: with_text(make_good(p), b'"I8"', b'"F8_E5M2"'), "unknown dtype F8_E5M2"),
    "minus 128": (lambda p: tensor_bytes(p, **with_value(-128)), "holds -128"),
    "zero": (lambda p: tensor_bytes(p, **ZEROS), "the update is zero"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_refused_with_its_reason(kind: str, tmp_path: Path) -> None:
    make, reason = KINDS[kind]
    path = tmp_path / "adapter"
    path.write_bytes(make(path))
    with pytest.raises(Malformed) as refusal:
        check(path)
    assert reason in str(refusal.value)
    assert len(str(refusal.value)) < 256


def test_a_well_formed_update_passes_with_its_norm(tmp_path: Path) -> None:
    make_good(tmp_path / "u")
    assert check(tmp_path / "u") == norm2(UPDATE, SPEC) > 0


def test_the_norm_cap_is_inclusive(tmp_path: Path) -> None:
    make_good(tmp_path / "u")
    n2 = norm2(UPDATE, SPEC)
    assert check(tmp_path / "u", norm_cap=n2) == n2
    with pytest.raises(Malformed, match=f"exceeds the task's cap of {n2 - 1}"):
        check(tmp_path / "u", norm_cap=n2 - 1)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    make_good(tmp_path / "u")
    (tmp_path / "link").symlink_to(tmp_path / "u")
    for name, reason in (("absent", "cannot be read"), (".", "not a regular file"), ("link", "not a regular file")):
        with pytest.raises(Malformed, match=reason):
            check(tmp_path / name)


def test_five_hundred_files_broken_by_chance_are_refused_or_unharmed(tmp_path: Path) -> None:
    """Whatever the bytes are, the only outcomes are Malformed or an update that is still well formed."""
    seed = 20_261_121
    print(f"seed {seed}")
    chance = random.Random(seed)
    good, path = make_good(tmp_path / "good"), tmp_path / "broken"
    header_end = 8 + int.from_bytes(good[:8], "little")
    refused = 0
    for _ in range(500):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(header_end if chance.random() < 0.9 else len(data)) % max(1, len(data))
            match chance.randrange(4):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[at : at + chance.randint(1, 30)]
                case 2:
                    data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 30)))
                case _:
                    other = chance.randrange(len(data) + 1)
                    data[at : at + 8] = data[other : other + 8]
        path.write_bytes(data)
        try:
            check(path)
        except Malformed:
            refused += 1
        else:
            # Only tensor bytes may have changed.
            assert data[:header_end] == good[:header_end]
    assert refused > 400


def test_ingress_needs_no_torch() -> None:
    program = "import sys, ml.spec, ml.ingress, ml.aggregate; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
