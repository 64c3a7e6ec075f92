"""What a light client trusts, in memory or in a small file that survives restarts."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Generic

from flockchain.codec import decode, encode
from flockchain.errors import Fault, Refused
from flockchain.light.rules import B
from flockchain.types.light import LightBlock

KEEP = 16
"""Newest verified blocks kept; the rest is forgotten."""
FORMAT = 1


class MemoryStore(Generic[B]):
    """`TrustedStore` without a file."""

    def __init__(self, keep: int = KEEP) -> None:
        assert keep >= 1
        self._keep = keep
        self._blocks: dict[int, B] = {}
        self.root: tuple[int, bytes] | None = None

    def begin(self, block: B, block_id: bytes) -> None:
        self.root = (block.header.height, block_id)
        self._blocks.clear()
        self.put([block])

    def heights(self) -> Sequence[int]:
        return sorted(self._blocks)

    def get(self, height: int) -> B:
        return self._blocks[height]

    def put(self, blocks: Sequence[B]) -> None:
        for block in blocks:
            self._blocks[block.header.height] = block
        for height in sorted(self._blocks)[: -self._keep]:
            del self._blocks[height]


class FileStore(MemoryStore[LightBlock]):
    """`TrustedStore` in one JSON file, replaced as a whole; raises `Fault` when it is damaged."""

    def __init__(self, path: Path, genesis_hash: bytes, keep: int = KEEP) -> None:
        """Opens the file or begins without one; refuses a file of another chain."""
        super().__init__(keep)
        self._path = path
        self._genesis_hash = genesis_hash
        self._load()

    def put(self, blocks: Sequence[LightBlock]) -> None:
        super().put(blocks)
        self._save()

    def _load(self) -> None:
        try:
            content = json.loads(self._path.read_text())
            genesis_hash = bytes.fromhex(content["genesis_hash"])
            blocks = [decode(LightBlock, bytes.fromhex(text)) for text in content["blocks"]]
            root = int(content["root"]["height"]), bytes.fromhex(content["root"]["block_id"])
            version = content["format"]
        except FileNotFoundError:
            return
        except OSError as error:
            raise Fault(f"{self._path}: cannot be read ({error.strerror}): name another file with --store") from None
        except (ValueError, KeyError, TypeError, Refused) as error:
            raise Fault(
                f"{self._path}: damaged ({type(error).__name__}): remove it, begin again with --trust HEIGHT:BLOCK_ID"
            ) from None
        if version != FORMAT:
            raise Fault(f"{self._path}: format {version}, this program reads {FORMAT}: name another file with --store")
        if genesis_hash != self._genesis_hash:
            raise Refused(
                "wrong-chain",
                f"{self._path} trusts the chain with genesis {genesis_hash.hex()[:16]}..., the node is on "
                f"{self._genesis_hash.hex()[:16]}...: name another file with --store",
            )
        self.root = root
        self._blocks = {block.height: block for block in blocks}

    def _save(self) -> None:
        assert self.root is not None, "`begin` comes first"
        content = {
            "format": FORMAT,
            "genesis_hash": self._genesis_hash.hex(),
            "root": {"height": self.root[0], "block_id": self.root[1].hex()},
            "blocks": [encode(self._blocks[height]).hex() for height in self.heights()],
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".light-")
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(content, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise Fault(
                f"{self._path}: cannot be written ({error.strerror}); what was trusted before is untouched"
            ) from None
