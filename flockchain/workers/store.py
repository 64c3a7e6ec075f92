"""A participant's files: adapters by root, fetched from any node and checked before use."""

from pathlib import Path

from flockchain.chunks import compute_file_root
from flockchain.client import Client


class AdapterFolder:
    """Adapters by root in one folder; a file is here whole or not at all."""

    def __init__(self, folder: Path, client: Client) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.client = client

    def path(self, root: str) -> Path:
        return self.folder / f"{root}.safetensors"

    def find(self, root: str) -> Path | None:
        """The file of this root if it is here, else from any node that has it; None when nobody has it yet."""
        path = self.path(root)
        if path.exists() or self.client.get_blob(bytes.fromhex(root), path):
            return path
        return None

    def keep(self, made: Path) -> tuple[str, int]:
        """Move a file that was made here to its place; returns (root, size in bytes)."""
        root, size = compute_file_root(made)
        made.replace(self.path(root.hex()))
        return root.hex(), size
