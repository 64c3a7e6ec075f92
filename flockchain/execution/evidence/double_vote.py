"""Two prevotes, or two precommits, of one validator for one height and round with different block ids, nil included."""

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.commits import check_vote_signature
from flockchain.execution.evidence.offence import Offence, get_offender, make_double_sign
from flockchain.execution.state import State
from flockchain.types.chain import PREVOTE, SignedVote
from flockchain.types.rows import Chain

KIND = "double-vote"


class Evidence(Canonical, frozen=True):
    """Sorted by block id, so that one offence has one form."""

    first: SignedVote
    second: SignedVote


def make_evidence(one: SignedVote, other: SignedVote) -> Evidence:
    """The evidence of two conflicting votes, whichever came first."""
    first, second = sorted((one, other), key=lambda vote: vote.body.block_id)
    return Evidence(first, second)


def judge(state: State, evidence: Evidence) -> Offence:
    first, second = evidence.first, evidence.second
    place = (first.validator, first.body.kind, first.body.height, first.body.round)
    if place != (second.validator, second.body.kind, second.body.height, second.body.round):
        raise Refused("bad-evidence", "the two votes differ in validator, kind, height or round: that is no offence")
    if first.body.block_id == second.body.block_id:
        raise Refused("bad-evidence", "the two votes are for the same block: that is no offence")
    if first.body.block_id > second.body.block_id:
        raise Refused("bad-evidence", "the votes of an evidence are sorted by block id")
    validator = get_offender(state, first.validator, first.body.height)
    genesis_hash = state.get(Chain).genesis_hash
    check_vote_signature(first, validator.public_key, genesis_hash)
    check_vote_signature(second, validator.public_key, genesis_hash)
    what = "prevotes" if first.body.kind == PREVOTE else "precommits"
    return make_double_sign(state, validator, first.body.height, f"{what} in round {first.body.round}")
