"""Node and validator keys at rest: JSON, mode 0600, sealed when a passphrase is given.

The seal is the keystore's: Argon2id (RFC 9106) and XSalsa20-Poly1305.
"""

import json
from pathlib import Path
from typing import Any

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from flockchain.crypto import address_of, format_address
from flockchain.errors import Fault, Refused
from flockchain.files import PRIVATE_MODE, disk_faults, replace_file
from flockchain.keystore import seal_key, unseal_key

VERSION = 1


def save_key(path: Path, key: SigningKey, passphrase: bytes = b"") -> None:
    """Write a key; refuses to replace one."""
    if path.exists():
        raise Refused("key-exists", f"{path} exists: nothing was replaced")
    document: dict[str, Any] = {
        "version": VERSION,
        "address": format_address(address_of(bytes(key.verify_key))),
        "public_key": bytes(key.verify_key).hex(),
    }
    if passphrase:
        document |= seal_key(key, passphrase)
    else:
        document["secret"] = bytes(key).hex()
    replace_file(path, json.dumps(document, indent=2).encode() + b"\n")


def load_key(path: Path, passphrase: bytes = b"") -> SigningKey:
    """Read a key; raises `Fault` when it is missing, readable by others, damaged or stays sealed."""
    with disk_faults(path):
        if not path.exists():
            raise Fault(f"{path} is missing: restore it, or make a new home with `flockchain init`")
        mode, data = path.stat().st_mode & 0o777, path.read_bytes()
    if mode & 0o077:
        raise Fault(f"{path} has mode {mode:04o}, others can read the key: run `chmod {PRIVATE_MODE:o} {path}`")
    try:
        document: dict[str, Any] = json.loads(data)
        is_sealed = "sealed" in document
        key = _unseal(path, document, passphrase) if is_sealed else SigningKey(bytes.fromhex(document["secret"]))
        is_whole = bytes(key.verify_key).hex() == document["public_key"]
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(f"{path} is damaged ({error}): restore it from your copy") from None
    if not is_whole:
        raise Fault(f"{path} is damaged (its public key is of another key): restore it from your copy")
    return key


def _unseal(path: Path, document: dict[str, Any], passphrase: bytes) -> SigningKey:
    if not passphrase:
        raise Fault(f"{path} is sealed: name its passphrase file as [validator] passphrase_file in config.toml")
    try:
        return unseal_key(document, passphrase)
    except CryptoError:
        raise Fault(f"the passphrase does not open {path}: check the passphrase file") from None
