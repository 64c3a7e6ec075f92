"""What the predicates need to know of a chain: how it hashes and signs. `FlockRules` is ours.

A chain of the Tendermint family with other encodings is verified by the same predicates through another `Rules`:
its headers, commits and validators need the attributes named here, nothing else.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from flockchain.codec import encode
from flockchain.crypto import address_of, format_address, is_signature_valid, signing_context
from flockchain.types.chain import PRECOMMIT, VOTE_PURPOSE, Commit, CommitSignature, Validator, VoteBody
from flockchain.types.light import LightBlock, compute_validators_hash


class HeaderLike(Protocol):
    @property
    def chain_id(self) -> str: ...
    @property
    def height(self) -> int: ...
    @property
    def time_ms(self) -> int: ...
    @property
    def validators_hash(self) -> bytes: ...
    @property
    def next_validators_hash(self) -> bytes: ...


class ValidatorLike(Protocol):
    @property
    def address(self) -> bytes: ...
    @property
    def public_key(self) -> bytes: ...
    @property
    def power(self) -> int: ...


class SignatureLike(Protocol):
    @property
    def validator(self) -> bytes:
        """Address of the signer."""


class CommitLike(Protocol):
    @property
    def height(self) -> int: ...
    @property
    def round(self) -> int: ...
    @property
    def block_id(self) -> bytes: ...
    @property
    def signatures(self) -> Sequence[SignatureLike]:
        """Precommits for `block_id` only: an adapter leaves out absent signers and precommits for nil."""


class LightBlockLike(Protocol):
    @property
    def header(self) -> HeaderLike: ...
    @property
    def commit(self) -> CommitLike: ...
    @property
    def validators(self) -> Sequence[ValidatorLike]: ...
    @property
    def next_validators(self) -> Sequence[ValidatorLike]: ...


B = TypeVar("B", bound=LightBlockLike)
B_co = TypeVar("B_co", bound=LightBlockLike, covariant=True)
B_contra = TypeVar("B_contra", bound=LightBlockLike, contravariant=True)


class Rules(Protocol[B_contra]):
    """The chain's own part of verification; every method is pure."""

    def compute_block_id(self, block: B_contra) -> bytes:
        """Of its header."""

    def compute_set_hashes(self, block: B_contra) -> tuple[bytes, bytes]:
        """Of its validators and its next validators."""

    def is_address_valid(self, validator: Any) -> bool:
        """Whether the address belongs to the public key."""

    def is_precommit_valid(self, block: B_contra, signature: Any, validator: Any) -> bool:
        """Whether `validator` signed the precommit for `block.commit` that `signature` claims."""

    def is_child(self, child: B_contra, parent: B_contra) -> bool:
        """Whether the header of `child` names `parent` as the block before it."""

    def format_address(self, address: bytes) -> str: ...


class FlockRules:
    """`Rules` of this project's chains; the genesis hash is part of every signed message."""

    def __init__(self, genesis_hash: bytes) -> None:
        self.genesis_hash = genesis_hash
        self._context = signing_context(VOTE_PURPOSE, genesis_hash)

    def compute_block_id(self, block: LightBlock) -> bytes:
        return block.header.block_id()

    def compute_set_hashes(self, block: LightBlock) -> tuple[bytes, bytes]:
        return compute_validators_hash(block.validators), compute_validators_hash(block.next_validators)

    def is_address_valid(self, validator: Validator) -> bool:
        return address_of(validator.public_key) == validator.address

    def is_precommit_valid(self, block: LightBlock, signature: CommitSignature, validator: Validator) -> bool:
        message = encode_precommit(block.commit)
        return is_signature_valid(validator.public_key, self._context, message, signature.signature)

    def is_child(self, child: LightBlock, parent: LightBlock) -> bool:
        return child.header.last_block_id == parent.header.block_id()

    def format_address(self, address: bytes) -> str:
        return format_address(address)


def encode_precommit(commit: Commit) -> bytes:
    """The message that every signer of this commit signed."""
    return encode(VoteBody(PRECOMMIT, commit.height, commit.round, commit.block_id))
