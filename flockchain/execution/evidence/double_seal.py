"""Two sealed `vote` transactions of one committee member for one training round with different seals."""

from flockchain.errors import Refused
from flockchain.execution.evidence.offence import Offence
from flockchain.execution.evidence.signed_pair import SignedPair, decode_pair, make_pair_offence
from flockchain.execution.state import State

KIND = "double-seal"
Evidence = SignedPair


def judge(state: State, evidence: SignedPair) -> Offence:
    first, second = decode_pair(state, evidence, "vote")
    if not (first.seal and second.seal) or first.seal == second.seal:
        raise Refused("bad-evidence", "the two votes do not carry two different seals: that is no offence")
    return make_pair_offence(state, KIND, evidence, first.task, first.round)
