"""Precommits that came after their block was decided: one of the next blocks carries them, for income and liveness."""

import msgspec

from flockchain.codec import encode
from flockchain.crypto import is_signature_valid
from flockchain.node.ledger import Ledger
from flockchain.types.chain import PRECOMMIT, Commit, CommitSignature, SignedVote
from flockchain.types.rows import RecentBlock, ValidatorRow


class LatePrecommits:
    """Verified late precommits of the last decided heights, at most one for each (height, validator)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._votes: dict[tuple[int, bytes], SignedVote] = {}

    def add(self, vote: SignedVote) -> None:
        """Keep the vote if a block may still carry it; anything else is silently not of use."""
        body, ledger = vote.body, self._ledger
        oldest = ledger.height - ledger.params.consensus.late_precommit_blocks
        key = (body.height, vote.validator)
        if body.kind != PRECOMMIT or not oldest < body.height <= ledger.height or key in self._votes:
            return
        if body.height == ledger.height:
            is_wanted = body.block_id == ledger.chain.last_block_id
        else:
            is_wanted = self._is_absent(vote)
        validator = ledger.state.find(ValidatorRow, vote.validator)
        if not is_wanted or validator is None:
            return
        if is_signature_valid(validator.public_key, ledger.vote_context, encode(body), vote.signature):
            self._votes[key] = vote

    def fill_commit(self, commit: Commit) -> Commit:
        """The last block's commit with what arrived since, of the same round."""
        members = {member.address for member in self._ledger.members(commit.height)} if commit.height else set()
        signatures = {signature.validator: signature for signature in commit.signatures}
        for vote in self._votes.values():
            is_same = (vote.body.height, vote.body.round) == (commit.height, commit.round)
            if is_same and vote.body.block_id == commit.block_id and vote.validator in members:
                signatures.setdefault(vote.validator, CommitSignature(vote.validator, vote.signature))
        return msgspec.structs.replace(commit, signatures=tuple(signatures[key] for key in sorted(signatures)))

    def for_next_block(self) -> tuple[SignedVote, ...]:
        """Those that the next block may carry, sorted by (height, validator)."""
        oldest = self._ledger.height - self._ledger.params.consensus.late_precommit_blocks
        return tuple(
            self._votes[key]
            for key in sorted(self._votes)
            if oldest < key[0] < self._ledger.height and self._is_absent(self._votes[key])
        )

    def prune(self) -> None:
        """After a block: forget what no block can carry any more."""
        oldest = self._ledger.height - self._ledger.params.consensus.late_precommit_blocks
        for key in [key for key in self._votes if key[0] <= oldest]:
            del self._votes[key]

    def _is_absent(self, vote: SignedVote) -> bool:
        recent = self._ledger.state.find(RecentBlock, vote.body.height)
        return (
            recent is not None
            and recent.block_id == vote.body.block_id
            and any(signer.validator == vote.validator for signer in recent.absent)
        )
