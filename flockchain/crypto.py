"""Hashes, signatures and addresses.

Ed25519 through PyNaCl (libsodium) is *the* signature rule on every path: libraries disagree on edge cases
(non-canonical points, small order), and two rules on one chain are a fork. No batch verification.
"""

import hashlib
from collections.abc import Iterable

import bech32
from nacl.bindings import crypto_sign_BYTES, crypto_sign_PUBLICKEYBYTES
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from flockchain.errors import Malformed

HASH_BYTES = 32
ADDRESS_BYTES = 20
PUBLIC_KEY_BYTES = crypto_sign_PUBLICKEYBYTES
SIGNATURE_BYTES = crypto_sign_BYTES
ZERO_HASH = bytes(HASH_BYTES)
ADDRESS_PREFIX = "flk"


def sha256(*parts: bytes) -> bytes:
    """SHA-256 (FIPS 180-4) over the concatenation of `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def tagged_hash(tag: str, parts: Iterable[bytes]) -> bytes:
    """SHA-256 with domain separation: tag and each part are preceded by their length (8 bytes, big endian)."""
    digest = hashlib.sha256()
    for part in (tag.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def signing_context(purpose: str, genesis_hash: bytes) -> bytes:
    """32 bytes put before every signed message: what it is for, and on which chain.

    A signature made for one purpose or one genesis is no signature, and no evidence, in another.
    """
    assert len(genesis_hash) == HASH_BYTES
    return tagged_hash("flockchain/signing-context", (purpose.encode(), genesis_hash))


def sign(key: SigningKey, context: bytes, message: bytes) -> bytes:
    """64-byte Ed25519 signature (RFC 8032) over ``context || message``."""
    assert len(context) == HASH_BYTES
    return bytes(key.sign(context + message).signature)


def is_signature_valid(public_key: bytes, context: bytes, message: bytes, signature: bytes) -> bool:
    """Whether libsodium accepts `signature`; wrong lengths and bad points are simply not valid."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public_key).verify(context + message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def address_of(public_key: bytes) -> bytes:
    """20-byte address of an Ed25519 public key."""
    return tagged_hash("flockchain/address", (public_key,))[:ADDRESS_BYTES]


def format_address(address: bytes) -> str:
    """Human-proof form ``flk1...`` (bech32, BIP-173: any up to four wrong letters are detected)."""
    assert len(address) == ADDRESS_BYTES
    words = bech32.convertbits(address, 8, 5)
    assert words is not None
    text: str = bech32.bech32_encode(ADDRESS_PREFIX, words)
    return text


def parse_address(text: str) -> bytes:
    """Address from its ``flk1...`` form; raises `Malformed` with what was wrong."""
    prefix, words = bech32.bech32_decode(text)
    if prefix is None or words is None:
        raise Malformed(f"address {text[:64]!r} has a wrong checksum or a wrong letter: copy it again from its source")
    if prefix != ADDRESS_PREFIX:
        raise Malformed(f"address {text[:64]!r} begins with {prefix!r}, an address of this chain begins with 'flk1'")
    data = bech32.convertbits(words, 5, 8, False)
    if data is None or len(data) != ADDRESS_BYTES:
        raise Malformed(f"address {text[:64]!r} does not hold {ADDRESS_BYTES} bytes")
    return bytes(data)
