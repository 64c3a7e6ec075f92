"""The salt of a sealed vote: found again by the same key after a restart, guessed by nobody else."""

import hashlib
import hmac

from nacl.signing import SigningKey

from flockchain.crypto import tagged_hash


def compute_salt(key: SigningKey, task: int, round: int) -> bytes:
    """HMAC-SHA256 (RFC 2104) under the voter's key over the place of the vote."""
    place = tagged_hash("flockchain/salt", (task.to_bytes(8, "big"), round.to_bytes(8, "big")))
    return hmac.digest(bytes(key), place, hashlib.sha256)
