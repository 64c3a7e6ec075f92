"""What this node holds of the height in progress: verified signatures and blocks, bounded.

Consensus counts votes without signatures and blocks as ids; here are the bytes behind both.
"""

from collections.abc import Collection, Iterable

from flockchain.consensus.messages import Proposal, Vote, VoteKind
from flockchain.types.chain import Block, Commit, CommitSignature, ProposalBody, SignedProposal, SignedVote, VoteBody

MAX_BLOCKS = 32
"""Room for two proposals of the current and of each of ten future rounds, the lock, and some that nobody needs."""
MAX_VOTES_PER_VALIDATOR = 1_024
"""Far beyond what consensus keeps of one validator; only an equivocator reaches it."""
MAX_PROPOSALS_PER_VALIDATOR = 256
"""Rounds in which one validator may propose, and more; nothing is displaced, or what left would be new again."""


class HeightBook:
    """Blocks by id, signed votes and proposals by what they say, of one height."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.blocks: dict[bytes, tuple[Block, bytes]] = {}
        """Block and canonical bytes by block id."""
        self.verdicts: dict[bytes, bool] = {}
        """Whether a held block may follow the chain."""
        self.logged_blocks: set[bytes] = set()
        """Ids of blocks whose bytes a record of the write-ahead log holds."""
        self._votes: dict[Vote, SignedVote] = {}
        self._vote_counts: dict[bytes, int] = {}
        self._proposal_counts: dict[bytes, int] = {}
        self._proposals: dict[Proposal, SignedProposal] = {}

    def add_block(
        self, block_id: bytes, block: Block, data: bytes, is_valid: bool, needed: Collection[bytes | None] = ()
    ) -> None:
        """Hold a block; beyond the limit the oldest goes that is not among the `needed` ids."""
        if len(self.blocks) >= MAX_BLOCKS:
            oldest = next((held for held in self.blocks if held not in needed), next(iter(self.blocks)))
            del self.blocks[oldest], self.verdicts[oldest]
        self.blocks[block_id] = (block, data)
        self.verdicts[block_id] = is_valid

    def add_vote(self, signed: SignedVote) -> bool:
        """Keep a verified vote; False when its validator has too many already."""
        count = self._vote_counts.get(signed.validator, 0)
        if count >= MAX_VOTES_PER_VALIDATOR:
            return False
        self._vote_counts[signed.validator] = count + 1
        self._votes[to_vote(signed)] = signed
        return True

    def add_proposal(self, signed: SignedProposal) -> bool:
        """Keep a verified proposal; False when its proposer has too many already."""
        if to_proposal(signed) in self._proposals:
            return True
        count = self._proposal_counts.get(signed.proposer, 0)
        if count >= MAX_PROPOSALS_PER_VALIDATOR:
            return False
        self._proposal_counts[signed.proposer] = count + 1
        self._proposals[to_proposal(signed)] = signed
        return True

    def vote(self, vote: Vote) -> SignedVote | None:
        return self._votes.get(vote)

    def proposal(self, proposal: Proposal) -> SignedProposal | None:
        return self._proposals.get(proposal)

    def signed_votes(self, votes: Iterable[Vote]) -> tuple[SignedVote, ...]:
        """The signed form of votes; those we could not sign ourselves are left out."""
        return tuple(signed for vote in votes if (signed := self._votes.get(vote)) is not None)

    def make_commit(self, round: int, block_id: bytes, votes: Iterable[Vote]) -> Commit:
        """The commit of these precommits, sorted by validator."""
        signed = sorted(self.signed_votes(votes), key=lambda vote: vote.validator)
        signatures = tuple(CommitSignature(vote.validator, vote.signature) for vote in signed)
        return Commit(self.height, round, block_id, signatures)


def to_vote(signed: SignedVote) -> Vote:
    """What consensus counts of a signed vote."""
    body = signed.body
    return Vote(VoteKind(body.kind), body.height, body.round, body.block_id or None, signed.validator)


def to_vote_body(vote: Vote) -> VoteBody:
    return VoteBody(int(vote.kind), vote.height, vote.round, vote.value_id or b"")


def to_proposal(signed: SignedProposal) -> Proposal:
    body = signed.body
    return Proposal(body.height, body.round, body.block_id, body.valid_round, signed.proposer)


def to_proposal_body(proposal: Proposal) -> ProposalBody:
    return ProposalBody(proposal.height, proposal.round, proposal.value_id, proposal.valid_round)
