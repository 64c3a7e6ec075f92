"""Node and validator keys at rest: JSON, mode 0600, sealed when a passphrase is given.

The seal is the keystore's: Argon2id (RFC 9106) and XSalsa20-Poly1305.
"""

import json
from pathlib import Path
from typing import Any

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.signing import SigningKey
from nacl.utils import random as random_bytes

from flockchain.crypto import address_of, format_address
from flockchain.errors import Fault, Refused
from flockchain.node.files import PRIVATE_MODE, replace_file

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
        salt = random_bytes(argon2id.SALTBYTES)
        opslimit, memlimit = argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE
        box = SecretBox(argon2id.kdf(SecretBox.KEY_SIZE, passphrase, salt, opslimit, memlimit))
        document["kdf"] = {"name": "argon2id", "salt": salt.hex(), "opslimit": opslimit, "memlimit": memlimit}
        document["sealed"] = bytes(box.encrypt(bytes(key))).hex()
    else:
        document["secret"] = bytes(key).hex()
    replace_file(path, json.dumps(document, indent=2).encode() + b"\n")


def load_key(path: Path, passphrase: bytes = b"") -> SigningKey:
    """Read a key; raises `Fault` when it is missing, readable by others, damaged or stays sealed."""
    if not path.exists():
        raise Fault(f"{path} is missing: restore it, or make a new home with `flockchain init`")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Fault(f"{path} has mode {mode:04o}, others can read the key: run `chmod {PRIVATE_MODE:o} {path}`")
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        seed = bytes.fromhex(document["secret"]) if "secret" in document else _unseal(path, document, passphrase)
        key = SigningKey(seed)
        is_whole = bytes(key.verify_key).hex() == document["public_key"]
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(f"{path} is damaged ({error}): restore it from your copy") from None
    if not is_whole:
        raise Fault(f"{path} is damaged (its public key is of another key): restore it from your copy")
    return key


def _unseal(path: Path, document: dict[str, Any], passphrase: bytes) -> bytes:
    if not passphrase:
        raise Fault(f"{path} is sealed: name its passphrase file as [validator] passphrase_file in config.toml")
    kdf = document["kdf"]
    sealing = argon2id.kdf(SecretBox.KEY_SIZE, passphrase, bytes.fromhex(kdf["salt"]), kdf["opslimit"], kdf["memlimit"])
    try:
        return bytes(SecretBox(sealing).decrypt(bytes.fromhex(document["sealed"])))
    except CryptoError:
        raise Fault(f"the passphrase does not open {path}: check the passphrase file") from None
