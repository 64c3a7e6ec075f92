"""Each arm of Algorithm 1 (arXiv:1807.04938) as a short story."""

import pytest

from flockchain.consensus.core import Core
from flockchain.consensus.effects import Decide, RequestValue, ScheduleTimeout, SendProposal
from flockchain.consensus.events import CertificateReceived, StartHeight, ValueReady, ValueReceived
from flockchain.consensus.messages import CommitCertificate, Proposal, Step, Vote, VoteKind

from .story import (
    FOUR,
    HEIGHT,
    A,
    B,
    C,
    D,
    X,
    Y,
    locked_on_x,
    my_precommit,
    my_prevote,
    polka,
    precommits,
    prevotes,
    proposal,
    proposer_of,
    started,
    tell,
    timeout,
)


def test_l21_a_listener_waits_for_the_proposal() -> None:
    assert Core(A, proposer_of).step(StartHeight(HEIGHT, FOUR)) == (ScheduleTimeout(Step.PROPOSE, HEIGHT, 0),)


def test_l18_the_proposer_asks_for_a_value() -> None:
    effects = Core(B, proposer_of).step(StartHeight(HEIGHT, FOUR))
    assert effects == (ScheduleTimeout(Step.PROPOSE, HEIGHT, 0), RequestValue(HEIGHT, 0))


def test_l19_the_proposer_proposes_and_prevotes_what_was_built() -> None:
    proposed, voted = started(B).step(ValueReady(HEIGHT, 0, X))
    assert proposed == SendProposal(Proposal(HEIGHT, 0, X, -1, B))
    assert voted.vote == Vote(VoteKind.PREVOTE, HEIGHT, 0, X, B)


def test_l19_a_value_that_comes_after_the_timeout_is_not_proposed() -> None:
    core = started(B)
    tell(core, timeout(Step.PROPOSE, 0))
    assert core.step(ValueReady(HEIGHT, 0, X)) == ()


def test_l19_a_second_value_for_one_round_is_not_proposed() -> None:
    core = started(B)
    core.step(ValueReady(HEIGHT, 0, X))
    assert core.step(ValueReady(HEIGHT, 0, Y)) == ()


def test_l22_a_valid_fresh_proposal_is_prevoted() -> None:
    assert tell(started(), proposal(0, X)) == (my_prevote(0, X),)


@pytest.mark.parametrize("verdict", [{"is_valid": False}, {"is_timely": False}])
def test_l22_an_invalid_or_untimely_proposal_gets_nil(verdict: dict[str, bool]) -> None:
    assert tell(started(), proposal(0, X, **verdict)) == (my_prevote(0, None),)


def test_l22_a_locked_validator_refuses_another_fresh_value() -> None:
    assert tell(locked_on_x(started()), proposal(1, Y)) == (my_prevote(1, None),)


def test_l22_a_locked_validator_accepts_its_value_again() -> None:
    assert tell(locked_on_x(started()), proposal(1, X)) == (my_prevote(1, X),)


def test_l22_a_proposal_from_someone_else_than_the_proposer_is_nothing() -> None:
    forged = proposal(0, X)
    forged = type(forged)(Proposal(HEIGHT, 0, X, -1, C), True)
    assert tell(started(), forged) == ()


def test_l28_a_reproposal_waits_for_its_polka() -> None:
    core = started()
    tell(core, timeout(Step.PROPOSE, 0), *precommits(0, None, B, C, D), timeout(Step.PRECOMMIT, 0))
    assert tell(core, proposal(1, X, valid_round=0)) == ()
    assert tell(core, *prevotes(0, X, B, C, D)) == (my_prevote(1, X),)


def test_l28_a_newer_polka_unlocks() -> None:
    core = locked_on_x(started())
    tell(core, proposal(1, Y), *precommits(1, None, B, C, D), timeout(Step.PRECOMMIT, 1))
    assert core.round == 2
    effects = tell(core, CertificateReceived(polka(1, Y, B, C, D)), proposal(2, Y, valid_round=1))
    assert my_prevote(2, Y) in effects


def test_l28_a_polka_older_than_the_lock_does_not_unlock() -> None:
    core = started()
    tell(core, timeout(Step.PROPOSE, 0), *precommits(0, None, B, C), timeout(Step.PRECOMMIT, 0))
    tell(core, *precommits(0, None, D), timeout(Step.PRECOMMIT, 0))
    tell(core, proposal(1, X), *prevotes(1, X, B, C), *precommits(1, None, B, C), timeout(Step.PRECOMMIT, 1))
    assert (core.round, core.locked_round) == (2, 1)
    effects = tell(core, CertificateReceived(polka(0, Y, B, C, D)), proposal(2, Y, valid_round=0))
    assert my_prevote(2, None) in effects


def test_l28_a_valid_round_that_is_not_in_the_past_is_nothing() -> None:
    assert tell(started(), proposal(0, X, valid_round=0)) == ()


def test_l34_any_polka_starts_the_prevote_timeout_once() -> None:
    core = started()
    tell(core, proposal(0, X), *prevotes(0, None, B))
    assert tell(core, *prevotes(0, Y, C)) == (ScheduleTimeout(Step.PREVOTE, HEIGHT, 0),)
    assert tell(core, *prevotes(0, None, D)) == ()


def test_l36_a_polka_locks_and_precommits() -> None:
    core = started()
    assert tell(core, proposal(0, X), *prevotes(0, X, B, C))[-1] == my_precommit(0, X)
    assert (core.locked_round, core.locked_value, core.valid_round, core.valid_value) == (0, X, 0, X)


def test_l36_a_polka_waits_for_its_proposal() -> None:
    core = started()
    assert tell(core, timeout(Step.PROPOSE, 0), *prevotes(0, X, B, C, D))[-1] == ScheduleTimeout(
        Step.PREVOTE, HEIGHT, 0
    )
    assert tell(core, proposal(0, X)) == (my_precommit(0, X),)


def test_l36_an_untimely_value_that_the_others_took_is_locked() -> None:
    core = started()
    assert tell(core, proposal(0, X, is_timely=False), *prevotes(0, X, B, C, D))[-1] == my_precommit(0, X)


def test_l42_a_polka_after_the_precommit_is_remembered_and_not_locked() -> None:
    core = started()
    tell(core, proposal(0, X), *prevotes(0, None, B, C), timeout(Step.PREVOTE, 0))
    assert core.current_step is Step.PRECOMMIT
    tell(core, CertificateReceived(polka(0, X, B, C, D)))
    assert (core.valid_round, core.valid_value, core.locked_round) == (0, X, -1)


def test_l44_a_polka_for_nil_precommits_nil() -> None:
    core = started()
    assert tell(core, timeout(Step.PROPOSE, 0), *prevotes(0, None, B, C))[-1] == my_precommit(0, None)


def test_l47_any_precommits_start_the_timeout_once() -> None:
    core = started()
    tell(core, *precommits(0, None, B, C))
    assert tell(core, *precommits(0, X, D)) == (ScheduleTimeout(Step.PRECOMMIT, HEIGHT, 0),)


def test_l49_a_commit_decides() -> None:
    core = started()
    assert tell(core, proposal(0, X), *precommits(0, X, B, C, D))[-1] == Decide(HEIGHT, 0, X)
    assert core.decided == (0, X)


def test_l49_two_thirds_are_not_enough() -> None:
    core = started()
    assert Decide(HEIGHT, 0, X) not in tell(core, proposal(0, X), *precommits(0, X, B, C))


def test_l49_an_older_round_may_decide() -> None:
    core = locked_on_x(started())
    assert Decide(HEIGHT, 0, X) in tell(core, *precommits(0, X, D, B))


def test_l49_a_decided_peer_helps_with_certificate_and_value() -> None:
    core = started()
    votes = tuple(Vote(VoteKind.PRECOMMIT, HEIGHT, 7, X, voter) for voter in (B, C, D))
    tell(core, CertificateReceived(CommitCertificate(HEIGHT, 7, X, votes)))
    assert tell(core, ValueReceived(HEIGHT, X, is_valid=True)) == (Decide(HEIGHT, 7, X),)


@pytest.mark.parametrize("value_id", [X, Y])
def test_l49_a_value_without_its_certificate_decides_nothing(value_id: bytes) -> None:
    assert tell(started(), ValueReceived(HEIGHT, value_id, is_valid=True)) == ()


def test_l49_an_invalid_value_is_never_decided() -> None:
    core = started()
    tell(core, proposal(0, X, is_valid=False), *prevotes(0, X, B, C, D), *precommits(0, X, B, C, D))
    assert core.decided is None
    assert core.locked_value is None


def test_l55_a_third_in_a_later_round_pulls_along() -> None:
    core = started()
    assert tell(core, *prevotes(5, X, B)) == ()
    assert tell(core, *precommits(5, None, C)) == (ScheduleTimeout(Step.PROPOSE, HEIGHT, 5),)
    assert core.round == 5


def test_l55_a_validator_in_a_still_later_round_counts_for_the_earlier_one() -> None:
    core = started()
    tell(core, *prevotes(5, X, B), *prevotes(7, X, C))
    assert core.round == 5


def test_l55_one_validator_with_two_votes_counts_once() -> None:
    core = started()
    tell(core, *prevotes(5, X, B), *prevotes(5, Y, B), *precommits(5, X, B))
    assert core.round == 0


def test_l57_silence_of_the_proposer_gets_nil() -> None:
    assert tell(started(), timeout(Step.PROPOSE, 0)) == (my_prevote(0, None),)


def test_l61_prevotes_without_agreement_get_nil() -> None:
    core = started()
    tell(core, proposal(0, X), *prevotes(0, None, B, C))
    assert tell(core, timeout(Step.PREVOTE, 0)) == (my_precommit(0, None),)


def test_l65_precommits_without_agreement_start_the_next_round() -> None:
    core = started()
    tell(core, timeout(Step.PROPOSE, 0), *prevotes(0, None, B, C), *precommits(0, X, B, C))
    assert tell(core, timeout(Step.PRECOMMIT, 0)) == (ScheduleTimeout(Step.PROPOSE, HEIGHT, 1),)


def test_timeouts_of_another_round_are_nothing() -> None:
    core = locked_on_x(started())
    assert tell(core, timeout(Step.PROPOSE, 0), timeout(Step.PREVOTE, 0), timeout(Step.PRECOMMIT, 0)) == ()


def test_l16_the_proposer_proposes_its_valid_value_again() -> None:
    core = started()
    tell(core, proposal(0, X), *prevotes(0, X, B, C))
    effects = tell(core, *prevotes(3, None, B, C))
    assert effects[:2] == (ScheduleTimeout(Step.PROPOSE, HEIGHT, 3), SendProposal(Proposal(HEIGHT, 3, X, 0, A)))
    assert my_prevote(3, X) in effects


def test_an_observer_follows_without_a_word() -> None:
    core = started(address=None)
    assert tell(core, proposal(0, X), *prevotes(0, X, B, C, D)) == ()
    assert tell(core, *precommits(0, X, B, C, D))[-1] == Decide(HEIGHT, 0, X)


def test_a_decided_core_stays_silent_and_collects_late_precommits() -> None:
    core = started()
    tell(core, proposal(0, X), *precommits(0, X, B, C, D))
    assert tell(core, timeout(Step.PRECOMMIT, 0), *precommits(0, X, A)) == ()
    commit = core.commit_certificate()
    assert commit is not None
    assert [vote.validator for vote in commit.votes] == [A, B, C, D]


def test_messages_of_another_height_are_nothing() -> None:
    core = started()
    core.step(StartHeight(2, FOUR))
    assert tell(core, proposal(0, X), *prevotes(0, X, B, C, D), *precommits(0, X, B, C, D)) == ()
    assert core.decided is None


def test_the_same_events_give_the_same_effects() -> None:
    events = [proposal(0, X), *prevotes(0, X, B, C), *precommits(0, None, B, C), timeout(Step.PRECOMMIT, 0)]
    assert tell(started(), *events) == tell(started(), *events)


def test_what_is_sent_again_begins_with_polka_and_proposal() -> None:
    core = locked_on_x(started())
    tell(core, proposal(1, X, valid_round=0), *prevotes(1, X, D))
    messages = core.current_messages()
    assert messages[:2] == (core.polka(HEIGHT, 0), Proposal(HEIGHT, 1, X, 0, C))
    assert {(m.kind, m.round, m.validator) for m in messages[2:]} == {
        (VoteKind.PRECOMMIT, 0, A),
        (VoteKind.PRECOMMIT, 0, B),
        (VoteKind.PRECOMMIT, 0, C),
        (VoteKind.PREVOTE, 1, A),
        (VoteKind.PREVOTE, 1, D),
    }


def test_what_a_decided_core_sends_again_is_the_commit() -> None:
    core = started()
    tell(core, proposal(0, X), *precommits(0, X, B, C, D))
    assert core.current_messages() == (core.commit_certificate(),)
