"""Where an audit finds bytes: adapters in the home or on a node, bases on this machine."""

from collections.abc import Sequence
from pathlib import Path

from flockchain.chunks import compute_file_root
from flockchain.client import Client


class Blobs:
    """Adapter files: the home's own, else a node's. Nothing is written into the home."""

    def __init__(self, folder: Path, scratch: Path, client: Client | None) -> None:
        self._folder = folder
        self._scratch = scratch
        self._client = client
        self._altered: set[bytes] = set()

    def is_altered(self, root: bytes) -> bool:
        """Whether the home holds a file under this name whose bytes have another root."""
        path = self._folder / root.hex()
        if path.is_file() and compute_file_root(path)[0] != root:
            self._altered.add(root)
        return root in self._altered

    def find(self, root: bytes) -> Path | None:
        """Call `is_altered` first. None: neither here nor on a node."""
        path, fetched = self._folder / root.hex(), self._scratch / root.hex()
        if path.is_file() and root not in self._altered:
            return path
        if fetched.exists() or (self._client is not None and self._client.get_blob(root, fetched)):
            return fetched
        return None


class BaseFinder:
    """Model folders by their base hash: those that were named, then those that were prepared on this machine."""

    def __init__(self, bases: Sequence[Path]) -> None:
        self._bases = list(bases)
        self._known: dict[str, Path] | None = None

    def __call__(self, wanted: str) -> Path | None:
        from ml.base import BaseError, base_hash, cache_folder

        if self._known is None:
            self._known = {}
            for folder in [*self._bases, *sorted(path.parent for path in cache_folder().glob("*/config.json"))]:
                try:
                    self._known.setdefault(base_hash(folder), folder)
                except (BaseError, OSError):
                    continue
        return self._known.get(wanted)
