"""A base model's files: which they are, whether they are whole and belong together, and their one hash."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
INDEX = "model.safetensors.index.json"
HASH_CACHE = ".base_hash.json"
READ_BYTES = 2**20
HASH_THREADS = 4
"""Files read at once: sha256 leaves Python's lock, and one core hashes less than a disk reads."""
MAX_HEADER_BYTES = 2**27

Known = dict[str, tuple[list[int], str]]
"""File name -> ([size, mtime_ns], hex sha256)."""


class BaseError(RuntimeError):
    """A base model that cannot be used; the sentence says what was wrong and what to do."""


def base_hash(folder: Path) -> str:
    """Hex sha256 over the sorted (name, size, sha256) of config.json, the tokenizer's files and *.safetensors.

    Shards are hashed side by side, and once: hashes are kept by (size, mtime_ns) beside the files, or, where that
    folder cannot be written, in the cache folder. Raises BaseError.
    """
    check_folder(folder)
    paths, remembered = _list_files(folder), _read_hash_cache(folder)
    stamps = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
    fresh = [path for path in paths if remembered.get(path.name, ([], ""))[0] != stamps[path.name]]
    with ThreadPoolExecutor(min(HASH_THREADS, os.cpu_count() or 1)) as pool:
        hashed = dict(zip((path.name for path in fresh), pool.map(_hash_file, fresh), strict=True))
    known: Known = {name: (stamp, hashed.get(name) or remembered[name][1]) for name, stamp in stamps.items()}
    if known != remembered:
        _write_hash_cache(folder, known)
    listing = [[name, stamp[0], digest] for name, (stamp, digest) in known.items()]
    return hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not a complete base: broken config, or weights missing, truncated, mixed up, pickled."""
    if not (folder / "config.json").is_file():
        raise BaseError(f"{folder} has no config.json: it is not a model folder")
    _read_json(folder / "config.json")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and not (folder / INDEX).exists():
        others = sorted(path.name for path in folder.glob("*.bin"))
        why = f"only {others[0]}, a pickle that could run code: convert it to safetensors" if others else "no weights"
        raise BaseError(f"{folder} has {why}")
    held = {path.name: _read_tensor_names(path) for path in weights}
    if (folder / INDEX).exists():
        _check_shards(folder, held)


def cache_folder() -> Path:
    """`FLOCKCHAIN_CACHE`, or ~/.cache/flockchain; made when absent."""
    folder = Path(os.environ.get("FLOCKCHAIN_CACHE") or Path.home() / ".cache" / "flockchain")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_shards(folder: Path, held: Mapping[str, set[str]]) -> None:
    """The index names every shard and what it holds: a shard of another model or place is found without reading it."""
    placed = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise BaseError(f"{folder / INDEX} has no weight_map: fetch the model again")
    wanted: dict[str, set[str]] = {}
    for tensor, name in placed.items():
        wanted.setdefault(str(name), set()).add(tensor)
    missing = sorted(wanted.keys() - held.keys())
    if missing:
        raise BaseError(
            f"{folder} lacks {len(missing)} of {len(wanted)} shards, first {missing[0]}: fetch the model again, "
            "finished shards are kept"
        )
    for name, tensors in sorted(wanted.items()):
        if tensors != held[name]:
            odd = sorted(tensors ^ held[name])
            raise BaseError(
                f"{folder / name} is not the shard that the index names: {len(odd)} tensors differ, first {odd[0]}; "
                "delete it and fetch it again"
            )


def _read_tensor_names(path: Path) -> set[str]:
    """Of a whole safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if 0 < length <= min(size, MAX_HEADER_BYTES) else None
            header.pop("__metadata__", None)
            needed = max(entry["data_offsets"][1] for entry in header.values())
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise BaseError(f"{path} is not a safetensors file: fetch it again") from None
    if size != 8 + length + needed:
        raise BaseError(f"{path} has {size} bytes, its header says {8 + length + needed}: fetch it again")
    return set(header)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseError(f"{path} is not JSON ({error}): fetch the model again") from None
    if not isinstance(document, dict):
        raise BaseError(f"{path} is not a JSON object: fetch the model again")
    return document


def _list_files(folder: Path) -> list[Path]:
    names = {"config.json", *TOKENIZER_FILES}
    return sorted(
        (path for path in folder.iterdir() if path.name in names or path.suffix == ".safetensors"),
        key=lambda path: path.name,
    )


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _list_caches(folder: Path) -> Iterator[Path]:
    """Beside the files; then, for folders that are read-only, by the folder's path."""
    yield folder / HASH_CACHE
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
    with suppress(OSError):
        (cache_folder() / "base-hashes").mkdir(exist_ok=True)
        yield cache_folder() / "base-hashes" / f"{name}.json"


def _read_hash_cache(folder: Path) -> Known:
    for path in _list_caches(folder):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return {str(name): (list(stamp), str(digest)) for name, (stamp, digest) in document.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            continue
    return {}


def _write_hash_cache(folder: Path, known: Known) -> None:
    for path in _list_caches(folder):
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(known), encoding="utf-8")
            partial.replace(path)
            return
        except OSError:
            continue
