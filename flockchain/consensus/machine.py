"""The round state machine: Algorithm 1 of arXiv:1807.04938 as a pure function.

`apply(state, address, input)` returns the next state and what to do. It never sees single votes: the driver hands it
thresholds ("a polka for this value") and proposals that may be judged now.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from flockchain.consensus.effects import Decide, Effect, RequestValue, ScheduleTimeout, SendProposal, SendVote
from flockchain.consensus.messages import NO_ROUND, Proposal, Step, Vote, VoteKind


@dataclass(frozen=True, slots=True)
class RoundState:
    """A validator's variables at one height (L1-L9), and which once-per-round rules have fired."""

    height: int
    round: int = 0
    step: Step = Step.PROPOSE
    locked_round: int = NO_ROUND
    locked_value: bytes | None = None
    valid_round: int = NO_ROUND
    valid_value: bytes | None = None
    decided: tuple[int, bytes] | None = None
    is_prevote_timeout_set: bool = False
    is_precommit_timeout_set: bool = False
    is_polka_seen: bool = False


@dataclass(frozen=True, slots=True)
class NewRound:
    round: int
    is_proposer: bool


@dataclass(frozen=True, slots=True)
class ValueBuilt:
    value_id: bytes


@dataclass(frozen=True, slots=True)
class ProposalJudged:
    """The round's proposal; one with a `valid_round` comes only after the polka of that round was seen."""

    value_id: bytes
    valid_round: int
    is_acceptable: bool


@dataclass(frozen=True, slots=True)
class PolkaAny:
    pass


@dataclass(frozen=True, slots=True)
class PolkaNil:
    pass


@dataclass(frozen=True, slots=True)
class PolkaValue:
    value_id: bytes


@dataclass(frozen=True, slots=True)
class PrecommitAny:
    pass


@dataclass(frozen=True, slots=True)
class CommitValue:
    round: int
    value_id: bytes


@dataclass(frozen=True, slots=True)
class ProposeTimeout:
    pass


@dataclass(frozen=True, slots=True)
class PrevoteTimeout:
    pass


RoundInput: TypeAlias = (
    NewRound
    | ValueBuilt
    | ProposalJudged
    | PolkaAny
    | PolkaNil
    | PolkaValue
    | PrecommitAny
    | CommitValue
    | ProposeTimeout
    | PrevoteTimeout
)
Transition: TypeAlias = tuple[RoundState, tuple[Effect, ...]]


def apply(state: RoundState, address: bytes | None, round_input: RoundInput) -> Transition:
    """One arm of Algorithm 1. `address` is None for an observer, which follows and never speaks."""
    assert state.decided is None, "a decided height has no further steps"
    match state.step, round_input:
        case _, NewRound(round, is_proposer):  # L11, arXiv:1807.04938 (entered from L54, L55, L65)
            return start_round(state, address, round, is_proposer)
        case Step.PROPOSE, ValueBuilt(value_id):  # L18
            return propose(state, address, value_id, NO_ROUND)
        case Step.PROPOSE, ProposalJudged(value_id, valid_round, is_acceptable):  # L22, L28
            accepted = is_acceptable and is_free_to_prevote(state, value_id, valid_round)
            return prevote(state, address, value_id if accepted else None)
        case Step.PREVOTE, PolkaAny() if not state.is_prevote_timeout_set:  # L34
            timeout = ScheduleTimeout(Step.PREVOTE, state.height, state.round)
            return replace(state, is_prevote_timeout_set=True), (timeout,)
        case Step.PREVOTE, PolkaValue(value_id) if not state.is_polka_seen:  # L36, first time and still prevoting
            locked = replace(remember_polka(state, value_id), locked_round=state.round, locked_value=value_id)
            return precommit(locked, address, value_id)
        case Step.PRECOMMIT, PolkaValue(value_id) if not state.is_polka_seen:  # L36, L42-L43 only
            return remember_polka(state, value_id), ()
        case Step.PREVOTE, PolkaNil():  # L44
            return precommit(state, address, None)
        case _, PrecommitAny() if not state.is_precommit_timeout_set:  # L47
            timeout = ScheduleTimeout(Step.PRECOMMIT, state.height, state.round)
            return replace(state, is_precommit_timeout_set=True), (timeout,)
        case _, CommitValue(round, value_id):  # L49
            return replace(state, decided=(round, value_id)), (Decide(state.height, round, value_id),)
        case Step.PROPOSE, ProposeTimeout():  # L57
            return prevote(state, address, None)
        case Step.PREVOTE, PrevoteTimeout():  # L61
            return precommit(state, address, None)
        case _:
            return state, ()


def start_round(state: RoundState, address: bytes | None, round: int, is_proposer: bool) -> Transition:
    """L11-L21. The proposer too waits at most one timeout, for its own value may fail to be built."""
    assert round > state.round or (round == 0 and state.step is Step.PROPOSE)
    entered = replace(
        state,
        round=round,
        step=Step.PROPOSE,
        is_prevote_timeout_set=False,
        is_precommit_timeout_set=False,
        is_polka_seen=False,
    )
    timeout = ScheduleTimeout(Step.PROPOSE, state.height, round)  # L21
    if not is_proposer:
        return entered, (timeout,)
    if entered.valid_value is None:
        return entered, (timeout, RequestValue(state.height, round))  # L18
    proposing, effects = propose(entered, address, entered.valid_value, entered.valid_round)  # L16
    return proposing, (timeout, *effects)


def is_free_to_prevote(state: RoundState, value_id: bytes, valid_round: int) -> bool:
    """The lock rule: a locked validator prevotes another value only on a polka at least as new (L23, L29)."""
    return state.locked_round <= valid_round or state.locked_value == value_id


def propose(state: RoundState, address: bytes | None, value_id: bytes, valid_round: int) -> Transition:
    """L19."""
    assert address is not None, "only a validator has a turn"
    assert valid_round < state.round
    return state, (SendProposal(Proposal(state.height, state.round, value_id, valid_round, address)),)


def prevote(state: RoundState, address: bytes | None, value_id: bytes | None) -> Transition:
    """L24-L27, L30-L33, L59-L60."""
    assert state.step is Step.PROPOSE
    return replace(state, step=Step.PREVOTE), _ballot(state, address, VoteKind.PREVOTE, value_id)


def precommit(state: RoundState, address: bytes | None, value_id: bytes | None) -> Transition:
    """L40-L41, L45-L46, L63-L64."""
    assert state.step is Step.PREVOTE
    assert value_id is None or state.locked_value == value_id
    return replace(state, step=Step.PRECOMMIT), _ballot(state, address, VoteKind.PRECOMMIT, value_id)


def remember_polka(state: RoundState, value_id: bytes) -> RoundState:
    """L42-L43."""
    assert state.round > state.valid_round
    return replace(state, valid_round=state.round, valid_value=value_id, is_polka_seen=True)


def _ballot(state: RoundState, address: bytes | None, kind: VoteKind, value_id: bytes | None) -> tuple[Effect, ...]:
    if address is None:
        return ()
    return (SendVote(Vote(kind, state.height, state.round, value_id, address)),)
