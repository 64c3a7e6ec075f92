"""Evidence: checkable proof of an offence. One file per type, registered here.

Each sibling module defines
    KIND: str                               the name on the wire, for example ``double-vote``
    Evidence                                frozen struct that holds the proof
    judge(state, evidence) -> Offence       who did what, when, and what it costs; raises `Refused` for no proof
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import msgspec

from flockchain.codec import decode
from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.epochs import get_evidence_age_ms
from flockchain.execution.evidence import double_proposal, double_seal, double_submission, double_vote
from flockchain.execution.evidence.offence import Offence
from flockchain.execution.slashing import slash_bond
from flockchain.execution.state import State
from flockchain.types.ids import I63_MAX
from flockchain.types.rows import Infraction, ValidatorRow


@dataclass(frozen=True, slots=True)
class EvidenceType:
    kind: str
    struct: type[Any]
    module: ModuleType


EVIDENCE_TYPES: dict[str, EvidenceType] = {
    module.KIND: EvidenceType(module.KIND, module.Evidence, module)
    for module in (double_proposal, double_seal, double_submission, double_vote)
}


def decode_evidence(kind: str, data: bytes) -> Any:
    """The struct of these canonical bytes; raises `Refused`."""
    if kind not in EVIDENCE_TYPES:
        raise Refused("unknown-evidence", f"no evidence type {kind[:32]!r}; there are: {', '.join(EVIDENCE_TYPES)}")
    return decode(EVIDENCE_TYPES[kind].struct, data)


def judge_evidence(state: State, kind: str, evidence: Any) -> Offence:
    """The offence that the evidence proves; raises `Refused` when it proves none."""
    offence: Offence = EVIDENCE_TYPES[kind].module.judge(state, evidence)
    return offence


def check_offence(context: Context, offence: Offence) -> None:
    """Refuse what is too old or was punished before."""
    state = context.state
    age_ms = get_evidence_age_ms(state, offence.offence_ms)
    if context.time_ms > offence.offence_ms + age_ms:
        raise Refused(
            "evidence-too-old",
            f"the offence of {offence.offence_ms} ms is more than {age_ms} ms before the block's {context.time_ms} ms",
        )
    validator = state.find(ValidatorRow, offence.validator) if offence.validator else None
    if state.find(Infraction, offence.key) is not None or (validator is not None and validator.tombstoned):
        raise Refused("already-punished", f"{format_address(offence.owner)} was punished for this before")


def process_offence(context: Context, offence: Offence, reporter: bytes, proof: bytes) -> int:
    """Slash, pay the reporter, tombstone a validator, remember the offence; returns the uflk taken."""
    state = context.state
    until_ms = offence.offence_ms + get_evidence_age_ms(state, offence.offence_ms)
    taken = slash_bond(
        context,
        offence.owner,
        offence.target,
        offence.penalty_ppm,
        reason=offence.reason,
        reporter=reporter,
        as_of_height=offence.as_of_height,
        task=offence.task,
        round=offence.round,
        evidence=proof,
    )
    state.put(Infraction(offence.key, context.height, until_ms))
    if offence.validator:
        validator = state.get(ValidatorRow, offence.validator)
        state.put(msgspec.structs.replace(validator, tombstoned=True, jailed_until_ms=I63_MAX))
        context.is_set_stale = True
        name = format_address(validator.address)
        context.add_receipt("tombstone", offence.owner, 0, f"validator {name} is out for good: {offence.reason}")
    return taken
