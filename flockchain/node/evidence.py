"""A validator that saw an equivocation reports it by itself, and again after each block until it is punished.

The `slash` transaction is signed by the validator's own consensus key, whose address is an account like any other:
there the reporter's share arrives. Evidence that holds is free, so an empty account can send it. One report waits at a
time, for the account's next nonce is one; in memory only: a restart forgets what it saw of heights decided before.
"""

from collections.abc import Callable

import structlog

from flockchain.codec import Canonical, encode
from flockchain.errors import Refused
from flockchain.execution.evidence import double_proposal, double_vote
from flockchain.execution.timemarks import get_time_of_ms
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Mempool
from flockchain.node.ports import Clock, Signer
from flockchain.txs import slash
from flockchain.types.chain import SignedProposal, SignedVote
from flockchain.types.rows import ValidatorRow
from flockchain.types.tx import Tx

log = structlog.get_logger()
Signed = SignedVote | SignedProposal
MAX_OFFENDERS = 256
"""One pair for each is kept, the first: a validator is punished once."""


class Accuser:
    """Pairs of conflicting messages seen here, until the chain has punished who signed them."""

    def __init__(
        self, ledger: Ledger, mempool: Mempool, signer: Signer | None, clock: Clock, submit: Callable[[bytes], bytes]
    ) -> None:
        self._ledger = ledger
        self._mempool = mempool
        self._signer = signer
        self._clock = clock
        self._submit = submit
        self._pairs: dict[bytes, tuple[Signed, Signed]] = {}
        self._sent: bytes | None = None

    def note(self, first: Signed, second: Signed) -> None:
        """Two messages of one validator for one step: keep the pair and report it."""
        who = first.validator if isinstance(first, SignedVote) else first.proposer
        log.warning("equivocation", validator=who.hex(), height=first.body.height, round=first.body.round)
        is_own = self._signer is not None and who == self._signer.address
        if not is_own and self._signer is not None and len(self._pairs) < MAX_OFFENDERS:
            self._pairs.setdefault(who, (first, second))
            self.report()

    def report(self) -> None:
        """Send the next report, unless one waits; called after each block."""
        for who in [who for who in self._pairs if self._is_settled(who)]:
            del self._pairs[who]
        if self._signer is None or (self._sent is not None and self._sent in self._mempool):
            return
        for first, second in self._pairs.values():
            try:
                self._sent = self._submit(make_slash(self._ledger, self._signer, first, second, self._clock.now_ms()))
                return
            except Refused as refusal:  # of a height not decided yet, or there is no room: after the next block
                log.warning("evidence-not-sent", reason=refusal.message)

    def _is_settled(self, who: bytes) -> bool:
        """Punished, gone, or the offence is too old to be punished."""
        row = self._ledger.state.find(ValidatorRow, who)
        offence_height = self._pairs[who][0].body.height
        is_forgotten = (
            offence_height <= self._ledger.height and get_time_of_ms(self._ledger.state, offence_height) is None
        )
        return row is None or row.tombstoned or is_forgotten


def make_slash(ledger: Ledger, signer: Signer, first: Signed, second: Signed, now_ms: int) -> bytes:
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
