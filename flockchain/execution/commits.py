"""Certificates of decided blocks: signatures of a commit and of late precommits."""

from flockchain.codec import encode
from flockchain.crypto import format_address, is_signature_valid, signing_context
from flockchain.errors import Refused
from flockchain.types.chain import EMPTY_COMMIT, PRECOMMIT, VOTE_PURPOSE, Commit, SignedVote, VoteBody
from flockchain.types.rows import SetMember


def check_commit(
    commit: Commit,
    members: tuple[SetMember, ...],
    height: int,
    block_id: bytes,
    genesis_hash: bytes,
    known: Commit = EMPTY_COMMIT,
) -> None:
    """Refuse unless more than 2/3 of the power of `members` precommitted `block_id` at `height`.

    What the caller has verified as `known`, a commit of this height by these members, is not verified again.
    """
    if height == 0:
        if commit != EMPTY_COMMIT:
            raise Refused("bad-commit", "the first block carries the empty commit")
        return
    if (commit.height, commit.block_id) != (height, block_id):
        raise Refused(
            "bad-commit",
            f"commit is for height {commit.height} block {commit.block_id.hex()}, "
            f"the last block is {height} {block_id.hex()}",
        )
    addresses = [signature.validator for signature in commit.signatures]
    if addresses != sorted(set(addresses)):
        raise Refused("bad-commit", "signatures of a commit are sorted by validator, none twice")
    by_address = {member.address: member for member in members}
    body = encode(VoteBody(PRECOMMIT, commit.height, commit.round, commit.block_id))
    context = signing_context(VOTE_PURPOSE, genesis_hash)
    is_same_vote = (known.height, known.round, known.block_id) == (commit.height, commit.round, commit.block_id)
    verified = known.signatures if is_same_vote else ()
    power = 0
    for signature in commit.signatures:
        member = by_address.get(signature.validator)
        if member is None:
            name = format_address(signature.validator)
            raise Refused("bad-commit", f"{name} signed the commit but is no validator of height {height}")
        is_valid = signature in verified or is_signature_valid(member.public_key, context, body, signature.signature)
        if not is_valid:
            raise Refused("bad-commit", f"the precommit of {format_address(member.address)} has a wrong signature")
        power += member.power
    total = sum(member.power for member in members)
    if 3 * power <= 2 * total:
        raise Refused("bad-commit", f"power {power} of {total} signed the commit, more than 2/3 is needed")


def check_vote_signature(vote: SignedVote, public_key: bytes, genesis_hash: bytes) -> None:
    context = signing_context(VOTE_PURPOSE, genesis_hash)
    if not is_signature_valid(public_key, context, encode(vote.body), vote.signature):
        raise Refused("bad-signature", f"the vote of {format_address(vote.validator)} has a wrong signature")
