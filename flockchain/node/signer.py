"""The validator's key, guarded by a file that remembers what it signed.

`signer_state.json` holds every signature of the newest height and is durable before a signature leaves. A restart
that repeats the height gets the same signatures; anything conflicting or older is refused. A key whose state is
missing does not sign: a copy of the key may have signed elsewhere, and a double sign costs the bond.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from flockchain.codec import Canonical, encode
from flockchain.crypto import address_of, sign, signing_context, tagged_hash
from flockchain.errors import Fault, Refused
from flockchain.execution.beacon import BeaconChain
from flockchain.files import disk_faults, replace_file
from flockchain.types.chain import (
    PROPOSAL_PURPOSE,
    TX_PURPOSE,
    VOTE_PURPOSE,
    ProposalBody,
    SignedProposal,
    SignedVote,
    VoteBody,
)
from flockchain.types.tx import SignedTx, Tx

VERSION = 1
MAX_ENTRIES = 512
"""Signatures kept of one height; beyond it those of the lowest rounds are forgotten and refused."""
_PROPOSAL_STEP = 0
Slot = tuple[int, int]
"""(round, step) within the height; steps: proposal 0, prevote 1, precommit 2."""


def compute_beacon_seed(key: SigningKey) -> bytes:
    """Secret seed of the validator's beacon chain; who builds a genesis registers `BeaconChain(seed).head`."""
    return tagged_hash("flockchain/beacon-seed", (bytes(key),))


def create_signer_state(path: Path, public_key: bytes) -> None:
    """The empty state of a key that has never signed anything anywhere."""
    if path.exists():
        raise Refused("signer-state-exists", f"{path} exists: it guards against double signing, nothing was replaced")
    replace_file(path, _format_state(public_key, 0, {}))


def read_signed_height(path: Path) -> tuple[bytes, int]:
    """(public key, newest height at which this key signed anything; 0: none); raises `Fault` as `PersistedSigner`."""
    owner, height, entries = _read_state(path)
    return owner, height if entries else max(0, height - 1)


def forbid_signed_heights(path: Path) -> int:
    """Let the key sign nothing more at heights where it signed before; returns the first at which it may sign.

    For a chain that is set back, restored or lost: its write-ahead log, and with it the lock of consensus, is gone.
    """
    owner, height = read_signed_height(path)
    replace_file(path, _format_state(owner, height + 1, {}))
    return height + 1


class PersistedSigner:
    """The `Signer` port over a key and its state file."""

    def __init__(self, key: SigningKey, state_path: Path, genesis_hash: bytes) -> None:
        self._key = key
        self._path = state_path
        self._contexts = {
            purpose: signing_context(purpose, genesis_hash) for purpose in (VOTE_PURPOSE, PROPOSAL_PURPOSE, TX_PURPOSE)
        }
        self.public_key = bytes(key.verify_key)
        self.address = address_of(self.public_key)
        self._height, self._entries = _load_state(state_path, self.public_key)

    @property
    def unfinished_height(self) -> int | None:
        """The newest height at which this key signed, unless it may sign nothing more there; None before the first."""
        return self._height if self._entries else None

    def leave_height(self) -> None:
        """Sign nothing more at the newest height and below: what was signed there is known, what led to it is lost."""
        if self._entries:
            replace_file(self._path, _format_state(self.public_key, self._height + 1, {}))
            self._height, self._entries = self._height + 1, {}

    def sign_vote(self, body: VoteBody) -> SignedVote:
        """The vote's one signature; raises `Refused` (code ``double-sign``) when it would be a second value."""
        signature = self._sign(VOTE_PURPOSE, body.height, (body.round, body.kind), body)
        return SignedVote(body, self.address, signature)

    def sign_proposal(self, body: ProposalBody) -> SignedProposal:
        """The proposal's one signature; raises `Refused` like `sign_vote`."""
        signature = self._sign(PROPOSAL_PURPOSE, body.height, (body.round, _PROPOSAL_STEP), body)
        return SignedProposal(body, self.address, signature)

    def sign_tx(self, tx: Tx) -> SignedTx:
        """Nothing to guard here: a nonce is used once, whatever is signed."""
        return SignedTx(tx, self.public_key, sign(self._key, self._contexts[TX_PURPOSE], encode(tx)))

    def reveal_beacon(self, head: bytes) -> bytes | None:
        """The preimage of our beacon head; None when the head is not of our chain or the chain is used up."""
        return self.beacon.find_preimage(head)

    @cached_property
    def beacon(self) -> BeaconChain:
        """Built at first use: about a third of a second."""
        return BeaconChain(compute_beacon_seed(self._key))

    def _sign(self, purpose: str, height: int, slot: Slot, body: Canonical) -> bytes:
        message = encode(body)
        if height == self._height and slot in self._entries:
            signed, signature = self._entries[slot]
            if signed != message:
                raise Refused("double-sign", f"this key signed another value at height {height}, round {slot[0]}")
            return signature
        if (height, slot) < (self._height, max(self._entries, default=(0, 0))):
            raise Refused("double-sign", f"this key already signed beyond height {height}, round {slot[0]}")
        entries = dict(self._entries) if height == self._height else {}
        signature = sign(self._key, self._contexts[purpose], message)
        entries[slot] = (message, signature)
        while len(entries) > MAX_ENTRIES:
            del entries[min(entries)]
        replace_file(self._path, _format_state(self.public_key, height, entries))
        self._height, self._entries = height, entries
        return signature


def _format_state(public_key: bytes, height: int, entries: dict[Slot, tuple[bytes, bytes]]) -> bytes:
    document = {
        "version": VERSION,
        "warning": "guards against double signing: never delete, copy or restore from a backup while the key is used",
        "public_key": public_key.hex(),
        "height": height,
        "signed": [
            {"round": slot[0], "step": slot[1], "message": message.hex(), "signature": signature.hex()}
            for slot, (message, signature) in sorted(entries.items())
        ],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _load_state(path: Path, public_key: bytes) -> tuple[int, dict[Slot, tuple[bytes, bytes]]]:
    """(height, what was signed there); raises `Fault` when the file is missing, broken or of another key."""
    owner, height, entries = _read_state(path)
    if owner != public_key:
        raise Fault(f"{path} belongs to another key ({owner.hex()}) or version: restore the one of this validator key")
    return height, entries


def _read_state(path: Path) -> tuple[bytes, int, dict[Slot, tuple[bytes, bytes]]]:
    try:
        with disk_faults(path):
            data = path.read_bytes() if path.exists() else None
        if data is None:
            raise Fault(
                f"the validator key has no {path}: without it this node could sign twice and lose its bond. Bring the "
                "file from where this key signed last, or run `flockchain init` for a key that never signed"
            )
        document: dict[str, Any] = json.loads(data)
        owner = bytes.fromhex(document["public_key"])
        entries = {
            (int(item["round"]), int(item["step"])): (bytes.fromhex(item["message"]), bytes.fromhex(item["signature"]))
            for item in document["signed"]
        }
        height, version = int(document["height"]), document["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(f"{path} is damaged ({error}): do not sign with this key before the file is restored") from None
    if version != VERSION:
        raise Fault(f"{path} belongs to another key ({owner.hex()}) or version: restore the one of this validator key")
    return owner, height, entries
