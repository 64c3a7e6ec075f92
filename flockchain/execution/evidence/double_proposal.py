"""Two proposals of one validator for one height and round with different block ids."""

from flockchain.codec import Canonical, encode
from flockchain.crypto import format_address, is_signature_valid, signing_context
from flockchain.errors import Refused
from flockchain.execution.evidence.offence import Offence, get_offender, make_double_sign
from flockchain.execution.state import State
from flockchain.types.chain import PROPOSAL_PURPOSE, SignedProposal
from flockchain.types.rows import Chain

KIND = "double-proposal"


class Evidence(Canonical, frozen=True):
    """Sorted by block id, so that one offence has one form."""

    first: SignedProposal
    second: SignedProposal


def make_evidence(one: SignedProposal, other: SignedProposal) -> Evidence:
    """The evidence of two conflicting proposals, whichever came first."""
    first, second = sorted((one, other), key=lambda proposal: proposal.body.block_id)
    return Evidence(first, second)


def judge(state: State, evidence: Evidence) -> Offence:
    first, second = evidence.first, evidence.second
    place = (first.proposer, first.body.height, first.body.round)
    if place != (second.proposer, second.body.height, second.body.round):
        raise Refused("bad-evidence", "the two proposals differ in proposer, height or round: that is no offence")
    if first.body.block_id == second.body.block_id:
        raise Refused("bad-evidence", "the two proposals are for the same block: that is no offence")
    if first.body.block_id > second.body.block_id:
        raise Refused("bad-evidence", "the proposals of an evidence are sorted by block id")
    validator = get_offender(state, first.proposer, first.body.height)
    context = signing_context(PROPOSAL_PURPOSE, state.get(Chain).genesis_hash)
    for proposal in (first, second):
        if not is_signature_valid(validator.public_key, context, encode(proposal.body), proposal.signature):
            name = format_address(validator.address)
            raise Refused("bad-signature", f"a proposal of {name} has a wrong signature")
    return make_double_sign(state, validator, first.body.height, f"proposals in round {first.body.round}")
