"""`slash`: report an offence with its evidence; the reporter earns its share of what is taken.

Evidence that proves an offence not yet punished makes the transaction free: whoever holds it can report it.
"""

from typing import Annotated

from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.evidence import check_offence, decode_evidence, judge_evidence, process_offence
from flockchain.execution.state import State
from flockchain.types.ids import Slug
from flockchain.types.rows import Chain
from flockchain.types.tx import Tx

KIND = "slash"


class Body(Canonical, frozen=True):
    evidence_kind: Slug
    """``double-vote``, ``double-proposal``, ``double-submission`` or ``double-seal``."""
    evidence: Annotated[bytes, Meta(max_length=65_536)]
    """Canonical bytes of that evidence type's struct."""


def check(body: Body, tx: Tx) -> None:
    decode_evidence(body.evidence_kind, body.evidence)


def is_due(state: State, tx: Tx, body: Body) -> bool:
    chain = state.get(Chain)
    try:
        offence = judge_evidence(state, body.evidence_kind, decode_evidence(body.evidence_kind, body.evidence))
        check_offence(Context(state, chain.height + 1, chain.time_ms, proposer=b""), offence)
    except Refused:
        return False
    return True


def apply(context: Context, tx: Tx, body: Body) -> None:
    evidence = decode_evidence(body.evidence_kind, body.evidence)
    offence = judge_evidence(context.state, body.evidence_kind, evidence)
    check_offence(context, offence)
    process_offence(context, offence, tx.sender, body.evidence)
