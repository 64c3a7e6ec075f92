"""Where `flockchain snapshot restore` takes a state from: an own snapshot, a folder, or a file of `flockchain export`.

The file holds JSON, one object a line: what it is, then every row of the state by key. `row` is for people and other
programs; `value` holds the canonical bytes, which alone are read back.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from api.json import render
from flockchain.codec import encode
from flockchain.errors import Refused
from flockchain.execution.state import State
from flockchain.node.restore import Snapshot
from flockchain.state_chunks import compute_depth, compute_manifest_root, compute_top, find_chunk
from flockchain.store.snapshots import SnapshotFolder
from flockchain.types.rows import TABLES, Chain
from flockchain.types.snapshot import KeyValue, SnapshotHead, StateChunk, StateManifest

FORMAT = "flockchain-state"
VERSION = 1


def open_source(source: str, own: Path, state_root: str | None) -> tuple[Snapshot, bytes]:
    """The snapshot that `source` names, and the root to hold it against; raises `Refused`."""
    is_own = source.isascii() and source.isdigit()
    path = Path(source)
    if not is_own and state_root is None:
        raise Refused(
            "no-state-root",
            "a state from elsewhere needs --state-root HEX: ask several operators for the state_root of its height",
        )
    if is_own:
        snapshot = _open_folder(SnapshotFolder(own), int(source))
    elif path.is_dir() and path.name.isdigit():
        snapshot = _open_folder(SnapshotFolder(path.parent), int(path.name))
    elif path.is_file():
        snapshot = read_export(path)
    else:
        raise Refused(
            "no-snapshot", f"{source} is no height, no snapshot's folder (named by its height) and no exported file"
        )
    return snapshot, _parse_root(state_root) if state_root else compute_manifest_root(snapshot.manifest)


def write_export(out: TextIO, state: State, head: SnapshotHead) -> int:
    """Write a state as a document; returns the number of its rows."""
    chain = state.get(Chain)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "chain_id": chain.chain_id,
        "genesis_hash": chain.genesis_hash.hex(),
        "height": chain.height,
        "time_ms": chain.time_ms,
        "block_id": chain.last_block_id.hex(),
        "state_root": state.root.hex(),
        "rows": len(state),
        "head": encode(head).hex(),
    }
    _write_line(out, facts)
    for key, row in state.items():
        name = TABLES[type(row)].name
        _write_line(out, {"table": name, "key": key.hex(), "row": render(row), "value": encode(row).hex()})
    return len(state)


def read_export(path: Path) -> Snapshot:
    """The state of a document, cut into chunks in memory; nothing in it is believed yet. Raises `Refused`."""
    try:
        with path.open(encoding="utf-8") as file:
            facts = json.loads(next(file, ""))
            if (facts["format"], facts["version"]) != (FORMAT, VERSION):
                raise Refused(
                    "bad-file", f"{path} is {facts['format']!r} {facts['version']}, this reads {FORMAT!r} {VERSION}"
                )
            rows = sorted(_read_rows(file))
            height, head = int(facts["height"]), bytes.fromhex(facts["head"])
    except OSError as error:
        raise Refused("bad-file", f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("bad-file", f"{path} is no document of `flockchain export`: {error!r}") from None
    return _cut(height, head, rows)


def _read_rows(lines: Iterable[str]) -> Iterator[KeyValue]:
    for line in lines:
        item: dict[str, Any] = json.loads(line)
        yield bytes.fromhex(item["key"]), bytes.fromhex(item["value"])


def _cut(height: int, head: bytes, rows: list[KeyValue]) -> Snapshot:
    depth = compute_depth(sum(len(key) + len(value) for key, value in rows))
    chunks: list[list[KeyValue]] = [[] for _ in range(1 << depth)]
    for row in rows:
        chunks[find_chunk(row[0], depth)].append(row)
    manifest = StateManifest(height, depth, tuple(compute_top(chunk, depth) for chunk in chunks))
    return Snapshot(manifest, head, lambda index: encode(StateChunk(tuple(chunks[index]))))


def _open_folder(folder: SnapshotFolder, height: int) -> Snapshot:
    return Snapshot(folder.manifest(height), folder.head_bytes(height), lambda index: folder.chunk(height, index))


def _parse_root(text: str) -> bytes:
    try:
        root = bytes.fromhex(text)
    except ValueError:
        root = b""
    if len(root) != 32:
        raise Refused("bad-state-root", f"--state-root {text!r}: write 64 hex digits")
    return root


def _write_line(out: TextIO, value: dict[str, Any]) -> None:
    out.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
