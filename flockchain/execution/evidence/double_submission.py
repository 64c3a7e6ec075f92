"""Two `submit-adapter` transactions of one trainer for one training round that name different adapters."""

from flockchain.errors import Refused
from flockchain.execution.evidence.offence import Offence
from flockchain.execution.evidence.signed_pair import SignedPair, decode_pair, make_pair_offence
from flockchain.execution.state import State

KIND = "double-submission"
Evidence = SignedPair


def judge(state: State, evidence: SignedPair) -> Offence:
    first, second = decode_pair(state, evidence, "submit-adapter")
    if first.root == second.root:
        raise Refused("bad-evidence", "the two submissions name the same adapter: that is no offence")
    return make_pair_offence(state, KIND, evidence, first.task, first.round)
