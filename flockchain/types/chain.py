"""Blocks, votes and certificates as they are signed, gossiped and stored."""

from typing import Annotated

from msgspec import Meta

from flockchain.codec import Canonical, encode
from flockchain.crypto import sha256
from flockchain.types.ids import Address, Hash, Ms, OptionalHash, PublicKey, Signature, UInt

PREVOTE = 1
PRECOMMIT = 2
VoteKindField = Annotated[int, Meta(ge=PREVOTE, le=PRECOMMIT)]
ValidRound = Annotated[int, Meta(ge=-1, le=2**31)]

VOTE_PURPOSE = "consensus-vote"
PROPOSAL_PURPOSE = "consensus-proposal"
TX_PURPOSE = "transaction"
POSSESSION_PURPOSE = "proof-of-possession"
PEER_PURPOSE = "peer-handshake"


class Validator(Canonical, frozen=True):
    """A member of the validator set; `address` belongs to its consensus key."""

    address: Address
    public_key: PublicKey
    power: UInt


class VoteBody(Canonical, frozen=True):
    """The signed part of a prevote or precommit; an empty `block_id` is nil."""

    kind: VoteKindField
    height: UInt
    round: UInt
    block_id: OptionalHash


class SignedVote(Canonical, frozen=True):
    body: VoteBody
    validator: Address
    signature: Signature


class ProposalBody(Canonical, frozen=True):
    """The signed part of a proposal; `valid_round` is -1 for a fresh value (L14-L19, arXiv:1807.04938)."""

    height: UInt
    round: UInt
    block_id: Hash
    valid_round: ValidRound


class SignedProposal(Canonical, frozen=True):
    body: ProposalBody
    proposer: Address
    signature: Signature


class CommitSignature(Canonical, frozen=True):
    validator: Address
    signature: Signature


class Commit(Canonical, frozen=True):
    """More than 2/3 precommits for one block; `signatures` sorted by validator address, none twice.

    The commit before the first block is ``Commit(0, 0, b"", ())``.
    """

    height: UInt
    round: UInt
    block_id: OptionalHash
    signatures: tuple[CommitSignature, ...]


class Header(Canonical, frozen=True):
    """What a block id commits to. `prev_*` describe the chain after the previous block."""

    protocol_version: UInt
    chain_id: str
    height: UInt
    time_ms: Ms
    proposer: Address
    last_block_id: OptionalHash
    last_commit_hash: Hash
    """sha256 of the canonical (last_commit, late_precommits) pair."""
    txs_root: Hash
    prev_results_root: Hash
    prev_state_root: Hash
    validators_hash: Hash
    next_validators_hash: Hash
    params_hash: Hash
    beacon_preimage: Hash
    """Next link of the proposer's sha256 hash chain; `beacon = sha256(beacon, preimage)`."""

    def block_id(self) -> bytes:
        return sha256(encode(self))


class Block(Canonical, frozen=True):
    header: Header
    txs: tuple[bytes, ...]
    """Canonical bytes of `SignedTx`, in execution order."""
    last_commit: Commit
    late_precommits: tuple[SignedVote, ...]
    """Precommits for the last 20 decided blocks that came after their commit; for income and liveness only."""

    @property
    def height(self) -> int:
        return self.header.height

    def block_id(self) -> bytes:
        return self.header.block_id()


EMPTY_COMMIT = Commit(0, 0, b"", ())
