"""A validator that saw an equivocation reports it by itself.

The `slash` transaction is signed by the validator's own consensus key, whose address is an account like any other:
there the reporter's share arrives. Evidence that holds is free, so an empty account can send it.
"""

from flockchain.codec import Canonical, encode
from flockchain.execution.evidence import double_proposal, double_vote
from flockchain.node.ledger import Ledger
from flockchain.node.ports import Signer
from flockchain.txs import slash
from flockchain.types.chain import SignedProposal, SignedVote
from flockchain.types.tx import Tx


def make_slash(
    ledger: Ledger, signer: Signer, first: SignedVote | SignedProposal, second: SignedVote | SignedProposal, now_ms: int
) -> bytes:
    """Signed bytes of the transaction that reports two conflicting messages of one validator."""
    evidence: Canonical
    if isinstance(first, SignedVote):
        assert isinstance(second, SignedVote)
        kind, evidence = double_vote.KIND, double_vote.make_evidence(first, second)
    else:
        assert isinstance(second, SignedProposal)
        kind, evidence = double_proposal.KIND, double_proposal.make_evidence(first, second)
    chain = ledger.chain
    tx = Tx(
        chain_id=chain.chain_id,
        kind=slash.KIND,
        sender=signer.address,
        nonce=ledger.next_nonce(signer.address),
        fee_uflk=0,
        expires_ms=max(now_ms, chain.time_ms) + chain.params.fees.max_expiry_ms // 2,
        body=encode(slash.Body(kind, encode(evidence))),
    )
    return encode(signer.sign_tx(tx))
