"""What an update must be before anything loads it: everything here reads bytes and integers, never code.

No torch, no pickle. Each refusal is one sentence that a judge puts on its ballot, so that two judges who look at the
same bytes refuse with the same words.
"""

import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ml.adapter import check_tensors
from ml.canonical import Array, Header, TensorFile, read_header, refuse
from ml.norms import norm2
from ml.spec import UPDATE_LIMIT, AdapterSpec

MAGICS = (
    (b"PK\x03\x04", "a zip archive (a torch.save file is a pickle in a zip)"),
    *((bytes((0x80, protocol)), "a Python pickle") for protocol in range(2, 6)),
    (b"GGUF", "a GGUF model"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x89HDF", "an HDF5 file"),
)
FLOATS = {"F16", "BF16", "F32", "F64"}
SCAN_BYTES = 2**20


def check_update_file(
    path: Path, spec: AdapterSpec, *, max_bytes: int, expected_manifest: Mapping[str, str], norm_cap: int = 0
) -> int:
    """N2 of a well-formed update; raises Malformed(reason) for anything else.

    `norm_cap` is the largest N2 (0: none). The file is not trusted in any way: sizes are bounded before they are read.
    """
    _check_file(path, max_bytes)
    header = read_header(path)
    _check_finite(path, header)
    check_tensors(header, spec, "I8")
    _check_manifest(header.manifest, expected_manifest)
    update = TensorFile(path, header)
    for name, values in update.items():
        if int(values.min()) < -UPDATE_LIMIT:
            refuse(f"tensor {name} holds -128: updates saturate at +-{UPDATE_LIMIT}")
    n2 = norm2(update, spec)
    if n2 == 0:
        refuse("the update is zero: |BA| is 0")
    if norm_cap and n2 > norm_cap:
        refuse(f"|BA|^2 of {n2} exceeds the task's cap of {norm_cap}")
    return n2


def _check_file(path: Path, max_bytes: int) -> None:
    try:
        status = path.lstat()
    except OSError as error:
        refuse(f"file cannot be read: {error.strerror}")
    if not stat.S_ISREG(status.st_mode):
        refuse("not a regular file")
    if status.st_size == 0:
        refuse("file is empty")
    if status.st_size > max_bytes:
        refuse(f"file of {status.st_size} bytes exceeds {max_bytes}")
    with path.open("rb") as file:
        head = file.read(8)
    # A canonical header's length is a multiple of 8 and below 2^24: of these magics only a pickle's could begin one.
    is_length = head[0] % 8 == 0 and head[3:8] == b"\0" * 5
    for magic, what in MAGICS:
        if head.startswith(magic) and not is_length:
            refuse(f"this is {what}, not safetensors")


def _check_manifest(manifest: Mapping[str, str], expected: Mapping[str, str]) -> None:
    for field, value in sorted(expected.items()):
        if manifest.get(field) != value:
            said = ascii(manifest[field])[:70] if field in manifest else "nothing"
            refuse(f"manifest says {said} for {field}, expected {value!r}")
    extra = sorted(manifest.keys() - expected.keys())
    if extra:
        refuse(f"manifest has an unexpected field {ascii(extra[0])[:60]}")


def _check_finite(path: Path, header: Header) -> None:
    """Integers are finite; a float file is refused anyway, and NaN or Inf in it are named."""
    data = np.memmap(path, mode="r")
    for name, entry in header.tensors.items():
        if entry.dtype not in FLOATS:
            continue
        start, end = header.data_start + entry.start, header.data_start + entry.end
        for at in range(start, end, SCAN_BYTES):
            flaw = _find_flaw(np.asarray(data[at : min(end, at + SCAN_BYTES)]), entry.dtype)
            if flaw:
                refuse(f"tensor {ascii(name)[1:61]} holds {flaw}; an update is integers (I8), this is {entry.dtype}")


def _find_flaw(raw: Array, dtype: str) -> str:
    # Bit tests on the raw words: no float is ever made of them (IEEE 754: exponent all ones).
    width, exponent = {"F16": (2, 0x7C00), "BF16": (2, 0x7F80), "F32": (4, 0x7F800000), "F64": (8, 0x7FF << 52)}[dtype]
    words = np.frombuffer(raw.tobytes(), f"<u{width}")
    special = words[(words & exponent) == exponent]
    if not special.size:
        return ""
    mantissa = special & (exponent & -exponent) - 1
    return "NaN" if mantissa.any() else "Inf"
