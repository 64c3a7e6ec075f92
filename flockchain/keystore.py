"""Account keys at rest: one JSON file per name, mode 0600, sealed with a passphrase.

The sealing key comes from Argon2id (RFC 9106) and the seal is XSalsa20-Poly1305 (NaCl secretbox), both from
libsodium. A devnet's keys are public test keys derived from their name; their files are sealed with an empty
passphrase and say so, which keeps one format and one code path.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.signing import SigningKey
from nacl.utils import random as random_bytes

from flockchain.crypto import address_of, format_address
from flockchain.errors import Refused
from flockchain.files import replace_file

VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Passphrase = Callable[[], bytes]
"""Asked only when a passphrase is needed."""


class Keystore:
    """Named account keys in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def address(self, name: str) -> bytes:
        """Address of an entry, without opening it."""
        return bytes.fromhex(self._load(name)["address_hex"])

    def create(self, name: str, passphrase: bytes) -> bytes:
        """A new random key under `name`; returns its address."""
        return self.add(name, SigningKey.generate(), passphrase)

    def add(self, name: str, key: SigningKey, passphrase: bytes) -> bytes:
        """Store `key`, sealed; refuses to replace an entry. Returns its address."""
        path = self._path(name)
        if path.exists():
            raise Refused(
                "key-exists", f"the keystore already holds {name!r}: choose another name, nothing was replaced"
            )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        address = address_of(bytes(key.verify_key))
        document = {
            "version": VERSION,
            "name": name,
            "address": format_address(address),
            "address_hex": address.hex(),
            "protected": bool(passphrase),
            **seal_key(key, passphrase),
        }
        replace_file(path, json.dumps(document, indent=2).encode() + b"\n")
        return address

    def open(self, name: str, passphrase: Passphrase) -> SigningKey:
        """The key under `name`; asks for the passphrase only if the entry needs one."""
        document = self._load(name)
        secret = passphrase() if document["protected"] else b""
        try:
            return unseal_key(document, secret)
        except CryptoError:
            raise Refused(
                "wrong-passphrase", f"the passphrase does not open key {name!r}: nothing was signed"
            ) from None

    def _load(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        if not path.exists():
            known = ", ".join(self.names()) or "none"
            raise Refused("unknown-key", f"no key {name!r} in {self.folder}; there are: {known}")
        try:
            document: dict[str, Any] = json.loads(path.read_bytes())
            assert document["version"] == VERSION
            document["kdf"]["memlimit"], document["sealed"], document["address_hex"], document["protected"]
        except (ValueError, KeyError, TypeError, AssertionError):
            raise Refused("broken-key-file", f"{path} is not a keystore entry: restore it from your copy") from None
        return document

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Refused(
                "bad-key-name", f"{name!r} cannot name a key: use letters, digits, '.', '_' and '-', at most 64"
            )
        return self.folder / f"{name}.json"


def seal_key(key: SigningKey, passphrase: bytes) -> dict[str, Any]:
    """The fields ``kdf`` and ``sealed`` of a key document."""
    salt = random_bytes(argon2id.SALTBYTES)
    opslimit, memlimit = _limits(passphrase)
    box = SecretBox(argon2id.kdf(SecretBox.KEY_SIZE, passphrase, salt, opslimit, memlimit))
    return {
        "kdf": {"name": "argon2id", "salt": salt.hex(), "opslimit": opslimit, "memlimit": memlimit},
        "sealed": bytes(box.encrypt(bytes(key))).hex(),
    }


def unseal_key(document: dict[str, Any], passphrase: bytes) -> SigningKey:
    """The key of a document's ``kdf`` and ``sealed``; raises `CryptoError` for a wrong passphrase."""
    kdf = document["kdf"]
    sealing = argon2id.kdf(SecretBox.KEY_SIZE, passphrase, bytes.fromhex(kdf["salt"]), kdf["opslimit"], kdf["memlimit"])
    return SigningKey(SecretBox(sealing).decrypt(bytes.fromhex(document["sealed"])))


def _limits(passphrase: bytes) -> tuple[int, int]:
    """Argon2id cost: libsodium's interactive profile, and its least where there is nothing to protect."""
    if passphrase:
        return argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE
    return argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN
