"""Words on the command line and in files that people write: addresses, hashes, amounts, durations."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import typer

from flockchain.crypto import parse_address
from flockchain.errors import Malformed, Refused
from flockchain.params import UFLK_PER_FLK
from flockchain.types.ids import I63_MAX

MAX_FILE_BYTES = 2**20
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE_BYTES = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SUFFIXES: dict[str, tuple[dict[str, int], str]] = {
    "_ms": (_DURATION_MS, "milliseconds, or such as '90s', '15m', '2h'"),
    "_uflk": ({"uflk": 1, "flk": UFLK_PER_FLK}, "uflk, or such as '500 FLK'"),
    "_ppm": ({"ppm": 1, "%": 10_000}, "ppm, or such as '2 %'"),
    "_bytes": (_SIZE_BYTES, "bytes, or such as '8 MiB'"),
}


def read_address(text: str) -> bytes:
    """For `typer.Option(parser=...)`: wrong usage where it is none."""
    try:
        return parse_address(text)
    except Malformed as error:
        raise typer.BadParameter(error.message) from None


def read_hash(text: str) -> bytes:
    """64 hex digits."""
    try:
        data = bytes.fromhex(text) if text.isascii() else b""
    except ValueError:
        data = b""
    if len(data) != 32:
        raise typer.BadParameter(f"{text[:80]!r} is not 64 hex digits")
    return data


def read_amount(name: str, value: Any) -> int:
    """A number in the unit that ends `name`, or text with a unit: '15m' for train_ms, '500 FLK' for pool_uflk.

    Raises `Refused` with the forms that are possible.
    """
    units, forms = next((unit for suffix, unit in _SUFFIXES.items() if name.endswith(suffix)), ({}, "a whole number"))
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*(\d{1,18})(?:\.(\d{1,9}))?\s*([A-Za-z%]*)\s*", value) if isinstance(value, str) else None
    unit = units.get(match[3].lower()) if match else None
    if match is None or unit is None:
        raise Refused("bad-value", f"{name}: {value!r} is not {forms}")
    fraction = match[2] or ""
    amount, rest = divmod(int(match[1] + fraction) * unit, 10 ** len(fraction))
    if rest or amount > I63_MAX:
        raise Refused("bad-value", f"{name}: {value!r} is no whole number of {name.rpartition('_')[2]}")
    return int(amount)


def read_document(path: Path) -> tuple[Any, str]:
    """(value, text) of a JSON file, or of a TOML file where its name ends so; raises `Refused` with the line."""
    text = read_text(path)
    try:
        return (tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)), text
    except json.JSONDecodeError as error:
        raise Refused("bad-file", f"{path} line {error.lineno}: not JSON: {error.msg}") from None
    except tomllib.TOMLDecodeError as error:
        raise Refused("bad-file", f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise Refused("bad-file", f"{path} is nested too deeply") from None


def read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Refused("bad-file", f"{path} has {path.stat().st_size} bytes, more than {MAX_FILE_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused("bad-file", f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Refused("bad-file", f"{path} is not UTF-8 at byte {error.start}") from None


def find_line(text: str, name: str) -> int:
    """Line of the first mention of a field as a key, 1 where there is none."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(rf"""\s*(\[?)["']?{re.escape(name)}["']?\s*[:=\]]""", line) or f'"{name}"' in line:
            return number
    return 1
