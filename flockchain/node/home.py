"""A node's home folder: where each file lies, how it is made, and that one process alone uses it."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

from flockchain.errors import Fault, Refused
from flockchain.files import disk_faults, replace_file
from flockchain.node.config import Config, format_config
from flockchain.node.key_file import save_key
from flockchain.node.signer import create_signer_state


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of one node (interface: the names are fixed)."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def genesis(self) -> Path:
        return self.path / "genesis.json"

    @property
    def node_key(self) -> Path:
        return self.path / "node_key.json"

    @property
    def validator_key(self) -> Path:
        return self.path / "validator_key.json"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def chain(self) -> Path:
        return self.data / "chain.sqlite"

    @property
    def signer_state(self) -> Path:
        return self.data / "signer_state.json"

    @property
    def wal(self) -> Path:
        return self.data / "wal"

    @property
    def peers(self) -> Path:
        return self.data / "peers.json"

    @property
    def blobs(self) -> Path:
        return self.data / "blobs"

    @property
    def snapshots(self) -> Path:
        return self.data / "snapshots"

    @property
    def joining(self) -> Path:
        """Parts of a snapshot on their way in."""
        return self.data / "joining"

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"


def create_home(
    path: Path,
    *,
    config: Config | None = None,
    node_key: SigningKey | None = None,
    validator_key: SigningKey | None = None,
    passphrase: bytes = b"",
) -> Home:
    """A new home with fresh keys (or the given ones) and an explained config; genesis.json is put there by the caller.

    Refuses a folder that already holds a home: a second key beside the first one's state would be an accident.
    """
    home = Home(path)
    if home.config.exists() or home.validator_key.exists():
        raise Refused("home-exists", f"{path} already is a node's home: nothing was changed")
    for folder in (path, home.data, home.blobs, home.snapshots, path / "keystore", home.logs):
        with disk_faults(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    validator_key = validator_key or SigningKey.generate()
    save_key(home.node_key, node_key or SigningKey.generate(), passphrase)
    save_key(home.validator_key, validator_key, passphrase)
    create_signer_state(home.signer_state, bytes(validator_key.verify_key))
    replace_file(home.config, format_config(config or Config()).encode(), 0o644)
    return home


class HomeLock:
    """Held while a process uses a home; the kernel drops it when the process dies, however it dies."""

    def __init__(self, home: Home) -> None:
        """Take the lock; raises `Fault` when another process has it."""
        with disk_faults(home.lock):
            home.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._take(home)
            except BaseException:
                os.close(self._file)
                raise

    def _take(self, home: Home) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode(errors="replace").strip()
            raise Fault(
                f"another process ({holder or 'unknown'}) uses {home.path}: two of them would sign twice; stop it first"
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, str(os.getpid()).encode())

    def release(self) -> None:
        os.close(self._file)
