"""The vote keeper: thresholds, equivocation as a typed result, bounded memory."""

import pytest

from flockchain.consensus.effects import ReportEquivocation
from flockchain.consensus.events import CertificateReceived
from flockchain.consensus.messages import PolkaCertificate, Proposal, Vote, VoteKind
from flockchain.consensus.powers import ValidatorPowers
from flockchain.consensus.proposals import FUTURE_ROUNDS, ProposalKeeper
from flockchain.consensus.votes import PAST_ROUNDS, Conflicting, Counted, VoteKeeper

from .story import FOUR, HEIGHT, A, B, C, D, X, Y, Z, polka, prevotes, proposal, proposer_of, started, tell


def vote(validator: bytes, value_id: bytes | None, round: int = 0, kind: VoteKind = VoteKind.PREVOTE) -> Vote:
    return Vote(kind, HEIGHT, round, value_id, validator)


@pytest.mark.parametrize(
    ("power", "total", "is_quorum", "is_third"),
    [(2, 3, False, True), (3, 4, True, True), (1, 3, False, False), (67, 100, True, True), (34, 100, False, True)],
)
def test_thresholds_are_strict(power: int, total: int, is_quorum: bool, is_third: bool) -> None:
    validators = ValidatorPowers((A, B), (1, total - 1))
    assert validators.is_quorum(power) is is_quorum
    assert validators.is_one_third(power) is is_third


def test_power_counts_and_not_heads() -> None:
    keeper = VoteKeeper(ValidatorPowers((A, B, C, D), (7, 1, 1, 1)))
    keeper.add(vote(A, X))
    assert keeper.tally(0, VoteKind.PREVOTE).quorum_id == X


def test_a_vote_counts_once_however_often_it_comes() -> None:
    keeper = VoteKeeper(FOUR)
    assert [keeper.add(vote(B, X)) for _ in range(5)] == [Counted.NEW] + [Counted.DUPLICATE] * 4
    assert keeper.tally(0, VoteKind.PREVOTE).power_for == {X: 1}


def test_an_equivocator_counts_for_both_ids_and_once_for_any() -> None:
    keeper = VoteKeeper(FOUR)
    keeper.add(vote(B, None))
    assert keeper.add(vote(B, X)) == Conflicting(vote(B, None), vote(B, X))
    tally = keeper.tally(0, VoteKind.PREVOTE)
    assert (tally.power_for, tally.any_power) == ({None: 1, X: 1}, 1)


def test_an_equivocators_first_vote_does_not_hide_the_quorum() -> None:
    core = started()
    tell(core, proposal(0, X), *prevotes(0, None, B))
    tell(core, *prevotes(0, X, B, C))
    assert core.locked_value == X


def test_a_third_id_is_surplus_unless_a_certificate_shows_it() -> None:
    keeper = VoteKeeper(FOUR)
    for value_id in (None, X):
        keeper.add(vote(B, value_id))
    assert keeper.add(vote(B, Y)) is Counted.SURPLUS
    keeper.add_certificate(polka(0, Y, B, C, D))
    assert keeper.tally(0, VoteKind.PREVOTE).quorum_id == Y


@pytest.mark.parametrize(
    "votes",
    [
        (vote(B, X), vote(C, X)),
        (vote(B, X), vote(C, X), vote(C, X)),
        (vote(B, X), vote(C, X), vote(D, Y)),
        (vote(B, X), vote(C, X), vote(b"stranger" + bytes(12), X)),
        (vote(B, X), vote(C, X), vote(D, X, round=1)),
    ],
    ids=["too few", "one twice", "another id", "a stranger", "another round"],
)
def test_a_certificate_that_proves_nothing_counts_nothing(votes: tuple[Vote, ...]) -> None:
    keeper = VoteKeeper(FOUR)
    assert keeper.add_certificate(PolkaCertificate(HEIGHT, 0, X, votes)) == ()
    assert keeper.tally(0, VoteKind.PREVOTE).any_power == 0


def test_a_stranger_does_not_count() -> None:
    assert VoteKeeper(FOUR).add(vote(b"stranger" + bytes(12), X)) is Counted.SURPLUS


def test_a_far_future_is_limited_to_two_rounds_a_validator() -> None:
    keeper = VoteKeeper(FOUR)
    for round in range(1, 1000):
        keeper.add(vote(B, X, round))
    assert [round for round in range(1, 1000) if keeper.tally(round, VoteKind.PREVOTE).votes] == [998, 999]
    assert keeper.add(vote(B, X, 5)) is Counted.SURPLUS


def test_what_one_validator_drops_stays_counted_for_the_others() -> None:
    keeper = VoteKeeper(FOUR)
    for voter in (B, C):
        keeper.add(vote(voter, X, 1))
    for round in (2, 3):
        keeper.add(vote(B, X, round))
    tally = keeper.tally(1, VoteKind.PREVOTE)
    assert (list(tally.votes), tally.any_power, tally.power_for) == ([C], 1, {X: 1})


def test_old_rounds_are_forgotten_but_for_the_valid_one() -> None:
    keeper = VoteKeeper(FOUR)
    for round in range(3 * PAST_ROUNDS):
        keeper.advance(round, kept_round=7)
        keeper.add(vote(B, X, round))
    kept = [round for round in range(3 * PAST_ROUNDS) if keeper.tally(round, VoteKind.PREVOTE).votes]
    assert kept == [7, *range(2 * PAST_ROUNDS - 1, 3 * PAST_ROUNDS)]


def test_a_proposal_far_ahead_is_dropped() -> None:
    core = started()
    tell(core, proposal(FUTURE_ROUNDS + 1, X))
    assert core.proposals_of(FUTURE_ROUNDS + 1) == ()


def test_a_third_proposal_is_kept_only_when_the_others_want_it() -> None:
    core = started()
    tell(core, proposal(0, X), proposal(0, Y), proposal(0, Z))
    assert len(core.proposals_of(0)) == 2
    tell(core, *prevotes(0, Z, B, C, D), proposal(0, Z))
    assert len(core.proposals_of(0)) == 3
    assert core.locked_value == Z


def test_conflicting_votes_are_reported_once() -> None:
    core = started()
    effects = tell(core, *prevotes(0, X, B), *prevotes(0, None, B), *prevotes(0, Y, B), *prevotes(0, None, B))
    assert effects == (ReportEquivocation(vote(B, X), vote(B, None)),)


def test_conflicting_votes_in_a_certificate_are_reported() -> None:
    core = started()
    tell(core, *prevotes(0, None, B))
    effects = tell(core, CertificateReceived(polka(0, X, B, C, D)))
    assert ReportEquivocation(vote(B, None), vote(B, X)) in effects


def test_conflicting_proposals_are_reported_once() -> None:
    core = started()
    effects = tell(core, proposal(0, X), proposal(0, Y), proposal(0, Y))
    reports = [effect for effect in effects if isinstance(effect, ReportEquivocation)]
    proposer = proposer_of(HEIGHT, 0)
    first, second = (Proposal(HEIGHT, 0, value_id, -1, proposer) for value_id in (X, Y))
    assert reports == [ReportEquivocation(first, second)]


def test_one_value_with_two_valid_rounds_is_no_evidence() -> None:
    keeper = ProposalKeeper()
    keeper.advance(3)
    for valid_round in (-1, 0):
        conflict = keeper.add(Proposal(HEIGHT, 3, X, valid_round, A), is_valid=True, is_timely=True, is_wanted=False)
        assert conflict is None
