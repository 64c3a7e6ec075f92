"""What nodes say to each other, by channel: canonical tagged structs with limits.

CONSENSUS  ProposalMessage, VoteMessage, Status, Decision
SYNC       BlockRequest, BlockResponse, BlocksPruned; LightBlockRequest, LightBlockResponse
           SnapshotsRequest, SnapshotOffers, ManifestRequest, ManifestResponse, PartRequest, PartResponse
MEMPOOL    TxBatch
BLOBS      BlobWant, BlobHave, ChunkRequest, ChunkResponse
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from flockchain.codec import Canonical, encode
from flockchain.errors import Malformed
from flockchain.node.ports import Channel
from flockchain.types.chain import Commit, SignedProposal, SignedVote
from flockchain.types.ids import Hash, UInt
from flockchain.types.light import LightBlock
from flockchain.types.snapshot import MAX_CHUNK_BYTES as MAX_PART_BYTES
from flockchain.types.snapshot import MAX_DEPTH, StateManifest

MAX_BLOCK_MESSAGE_BYTES = 4_600_000
"""A block of the largest size that parameters allow, with its last commit and late precommits."""
MAX_VOTES = 1_024
MAX_BLOCKS = 64
MAX_TXS = 1_000
MAX_TX_BYTES = 65_536
MAX_ROOTS = 256
MAX_PROOF_HASHES = 32
MAX_CHUNK_BYTES = 262_144
MAX_OFFERS = 16

BlockBytes = Annotated[bytes, Meta(max_length=MAX_BLOCK_MESSAGE_BYTES)]
Votes = Annotated[tuple[SignedVote, ...], Meta(max_length=MAX_VOTES)]
Hashes = Annotated[tuple[Hash, ...], Meta(max_length=MAX_ROOTS)]


class ProposalMessage(Canonical, frozen=True, tag=1):
    """A proposal with its block's canonical bytes (empty when the receiver said that it holds them).

    `polka` is the proof of lock of a re-proposal: more than 2/3 prevotes of its `valid_round`.
    """

    proposal: SignedProposal
    block: BlockBytes
    polka: Votes


class VoteMessage(Canonical, frozen=True, tag=2):
    """One vote as it is cast, or many when a peer lags."""

    votes: Votes


class Status(Canonical, frozen=True, tag=3):
    """Where the sender stands, sent regularly: others see from it what it lacks."""

    decided_height: UInt
    round: UInt
    """Of the height in progress, `decided_height + 1`."""
    is_started: bool
    """Whether that height is in progress, or waits for work."""
    block_ids: Annotated[tuple[Hash, ...], Meta(max_length=32)]
    """Blocks of the height in progress that the sender holds."""
    peers: UInt


class Decision(Canonical, frozen=True, tag=4):
    """A decided block with its commit, for a peer that missed the end of that height."""

    block: BlockBytes
    commit: Commit


class BlockRequest(Canonical, frozen=True, tag=5):
    """Ask for decided blocks `first` to `last`, both included."""

    first: UInt
    last: UInt


class BlockResponse(Canonical, frozen=True, tag=6):
    """As many blocks from `first` on as fit; none when the sender does not hold `first`."""

    first: UInt
    decisions: Annotated[tuple[tuple[BlockBytes, Commit], ...], Meta(max_length=MAX_BLOCKS)]


class SnapshotsRequest(Canonical, frozen=True, tag=16):
    """Ask a peer how far its chain is, and which snapshots it holds."""


class SnapshotOffer(Canonical, frozen=True):
    """A snapshot of `height`, cut by so many bits of the key hash."""

    height: UInt
    depth: Annotated[int, Meta(ge=0, le=MAX_DEPTH)]


class SnapshotOffers(Canonical, frozen=True, tag=17):
    decided_height: UInt
    offers: Annotated[tuple[SnapshotOffer, ...], Meta(max_length=MAX_OFFERS)]
    """Those of which the sender also holds the next header, which proves them; newest first."""


class ManifestRequest(Canonical, frozen=True, tag=18):
    height: UInt
    depth: UInt


class ManifestResponse(Canonical, frozen=True, tag=19):
    height: UInt
    depth: UInt
    manifest: StateManifest | None
    """None: the sender does not hold it (any more)."""


class PartRequest(Canonical, frozen=True, tag=20):
    """Part 0 is the head of the snapshot, part n its chunk n - 1."""

    height: UInt
    depth: UInt
    part: UInt


class PartResponse(Canonical, frozen=True, tag=21):
    """Canonical bytes of the `SnapshotHead` or `StateChunk`; empty: the sender does not hold it (any more)."""

    height: UInt
    depth: UInt
    part: UInt
    data: Annotated[bytes, Meta(max_length=MAX_PART_BYTES)]


class LightBlockRequest(Canonical, frozen=True, tag=22):
    height: UInt


class LightBlockResponse(Canonical, frozen=True, tag=23):
    height: UInt
    block: LightBlock | None
    """None: the sender does not hold it."""


class BlocksPruned(Canonical, frozen=True, tag=24):
    """Instead of a `BlockResponse`: the sender holds no block below `held_from`."""

    first: UInt
    held_from: UInt


class TxBatch(Canonical, frozen=True, tag=7):
    txs: Annotated[tuple[Annotated[bytes, Meta(max_length=MAX_TX_BYTES)], ...], Meta(max_length=MAX_TXS)]


class BlobWant(Canonical, frozen=True, tag=8):
    """Ask who holds these files whole."""

    roots: Hashes


class BlobHave(Canonical, frozen=True, tag=9):
    """The sender holds these files whole."""

    roots: Hashes


class ChunkRequest(Canonical, frozen=True, tag=10):
    root: Hash
    index: UInt


class ChunkResponse(Canonical, frozen=True, tag=11):
    """A chunk with its Merkle proof; empty data: the sender does not hold the file."""

    root: Hash
    index: UInt
    data: Annotated[bytes, Meta(max_length=MAX_CHUNK_BYTES)]
    proof: Annotated[tuple[Hash, ...], Meta(max_length=MAX_PROOF_HASHES)]


ConsensusMessage = ProposalMessage | VoteMessage | Status | Decision
SnapshotQuestion = SnapshotsRequest | ManifestRequest | PartRequest | LightBlockRequest
SnapshotAnswer = SnapshotOffers | ManifestResponse | PartResponse | LightBlockResponse
SyncMessage = BlockRequest | BlockResponse | BlocksPruned | SnapshotQuestion | SnapshotAnswer
BlobMessage = BlobWant | BlobHave | ChunkRequest | ChunkResponse
Message = ConsensusMessage | SyncMessage | TxBatch | BlobMessage

_DECODERS: dict[Channel, "msgspec.msgpack.Decoder[Any]"] = {
    Channel.CONSENSUS: msgspec.msgpack.Decoder(ConsensusMessage),
    Channel.SYNC: msgspec.msgpack.Decoder(SyncMessage),
    Channel.MEMPOOL: msgspec.msgpack.Decoder(TxBatch),
    Channel.BLOBS: msgspec.msgpack.Decoder(BlobMessage),
}


def decode_message(channel: Channel, data: bytes) -> Message:
    """The message of this channel whose canonical bytes are `data`; raises `Malformed` for anything else."""
    message: Message = decode_tagged(_DECODERS[channel], data, f"channel {channel.name.lower()}")
    return message


def make_decoder(kind: Any) -> "msgspec.msgpack.Decoder[Any]":
    """For a union of tagged `Canonical` structs."""
    return msgspec.msgpack.Decoder(kind)


def decode_tagged(decoder: "msgspec.msgpack.Decoder[Any]", data: bytes, where: str) -> Any:
    """The struct whose canonical bytes are `data`; raises `Malformed` for anything else."""
    try:
        message = decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"message on {where}: {error}") from None
    if encode(message) != data:
        raise Malformed(f"message on {where} is not in canonical form")
    return message
