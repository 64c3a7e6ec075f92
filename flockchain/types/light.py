"""What a node hands to those who verify instead of trusting it: a light block, and a row with its proof."""

from typing import Annotated

from msgspec import Meta

from flockchain.codec import Canonical, encode
from flockchain.crypto import sha256
from flockchain.state_tree import StateProof
from flockchain.types.chain import Commit, Header, Validator

MAX_VALIDATORS = 10_000
MAX_KEY_BYTES = 512
MAX_ROW_BYTES = 4_194_304

Validators = Annotated[tuple[Validator, ...], Meta(max_length=MAX_VALIDATORS)]


class LightBlock(Canonical, frozen=True):
    """A header, the commit that decided it, and the two validator sets that it names by their hashes."""

    header: Header
    commit: Commit
    validators: Validators
    """Who signs this height; sorted by address."""
    next_validators: Validators
    """Who signs the next height."""

    @property
    def height(self) -> int:
        return self.header.height

    def block_id(self) -> bytes:
        return self.header.block_id()


class ProvenRow(Canonical, frozen=True):
    """What the state after block ``header.height - 1`` holds under `key`, proven by ``header.prev_state_root``."""

    key: Annotated[bytes, Meta(min_length=1, max_length=MAX_KEY_BYTES)]
    """`types.rows.row_key`."""
    value: Annotated[bytes, Meta(max_length=MAX_ROW_BYTES)] | None
    """Canonical bytes of the row; None: the state does not hold the key."""
    proof: StateProof
    header: Header
    commit: Commit


def compute_validators_hash(validators: tuple[Validator, ...]) -> bytes:
    """What a header commits to: addresses, keys and powers, not priorities."""
    return sha256(encode(validators))
