"""What the write-ahead log holds: one record for each event that consensus was fed, with its signatures and bytes."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.errors import Fault
from flockchain.types.chain import SignedProposal, SignedVote
from flockchain.types.ids import Hash, UInt

StepNumber = Annotated[int, Meta(ge=0, le=2)]


class StartRecord(Canonical, frozen=True, tag=1):
    height: UInt


class ProposalRecord(Canonical, frozen=True, tag=2):
    """`block` is empty when an earlier record of the height holds it."""

    proposal: SignedProposal
    block: bytes
    is_valid: bool
    is_timely: bool


class VoteRecord(Canonical, frozen=True, tag=3):
    vote: SignedVote


class PolkaRecord(Canonical, frozen=True, tag=4):
    """The proof of lock of a re-proposal."""

    round: UInt
    block_id: Hash
    votes: tuple[SignedVote, ...]


class TimeoutRecord(Canonical, frozen=True, tag=5):
    step: StepNumber
    height: UInt
    round: UInt


class ValueRecord(Canonical, frozen=True, tag=6):
    """The block that this node built for a round."""

    height: UInt
    round: UInt
    block: bytes


Record = StartRecord | ProposalRecord | VoteRecord | PolkaRecord | TimeoutRecord | ValueRecord

_decoder: "msgspec.msgpack.Decoder[Any]" = msgspec.msgpack.Decoder(Record)


def decode_record(data: bytes) -> Record:
    """A record that this program wrote; its checksum was verified."""
    try:
        record: Record = _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Fault(f"the write-ahead log was written by another version ({error}): start that version once") from None
    return record
