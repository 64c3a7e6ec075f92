"""Malicious ballots and split stakes: integers in, integers out, each what its file says of it."""

import pytest

from ml.attacks.draws.sybils import count_tickets, split_stake
from ml.attacks.votes import Figures, VoteContext, cast_vote, list_options, list_votes
from ml.figures import Change

HONEST: Figures = {
    "friend": {0: Change(40_000, 2_000), 1: Change(-1_000, 500)},
    "other": {0: Change(-30_000, 2_000), 1: Change(500, 8_000)},
}
CONTEXT = VoteContext(HONEST, friends=frozenset({"friend"}), tolerance_ppm=20_000, outlier_distance_ppm=30_000)


@pytest.mark.parametrize("name", list_votes())
def test_a_ballot_is_about_what_was_asked_in_integers_and_always_the_same(name: str) -> None:
    ballot = cast_vote(name, CONTEXT)
    assert ballot is not None
    assert {root: list(domains) for root, domains in ballot.items()} == {"friend": [0, 1], "other": [0, 1]}
    figures = [figure for domains in ballot.values() for figure in domains.values()]
    assert all(type(value) is int for figure in figures for value in (figure.change_ppm, figure.se_ppm))
    assert all(figure.change_ppm >= -1_000_000 and figure.se_ppm >= 1 for figure in figures)
    assert cast_vote(name, CONTEXT) == ballot


def test_unknown_names_say_which_are_known() -> None:
    assert list_options("lying_judge") == {"lie_ppm": 100_000}
    with pytest.raises(ValueError, match="known: colluding_minority, copied_vote, lazy_judge, lying_judge, withheld"):
        cast_vote("bribe", CONTEXT)
    with pytest.raises(ValueError, match="lying_judge has no option 'size'; it has: lie_ppm"):
        cast_vote("lying_judge", CONTEXT, size=3)
    with pytest.raises(ValueError, match="unknown laziness 'asleep'"):
        cast_vote("lazy_judge", CONTEXT, how="asleep")


def test_a_liar_praises_its_friends_and_slanders_the_rest() -> None:
    ballot = cast_vote("lying_judge", CONTEXT, lie_ppm=70_000)
    assert ballot is not None
    assert {figure.change_ppm for figure in ballot["friend"].values()} == {-70_000}
    assert {figure.change_ppm for figure in ballot["other"].values()} == {70_000}


def test_a_colluder_stays_within_the_distance_of_an_honest_peer() -> None:
    """Whatever the figure: max(published distance, six standard errors, three quarters of the median)."""
    ballot = cast_vote("colluding_minority", CONTEXT, margin_milli=1_000)
    assert ballot is not None
    for root, domains in ballot.items():
        for domain, figure in domains.items():
            honest = HONEST[root][domain]
            limit = max(30_000, 6 * honest.se_ppm, 3 * abs(honest.change_ppm) // 4)
            moved = figure.change_ppm - honest.change_ppm
            assert moved == (-limit if root == "friend" else limit)
            assert figure.se_ppm == honest.se_ppm


def test_a_lazy_judge_says_the_same_of_all_or_draws_within_its_limit() -> None:
    constant, drawn = cast_vote("lazy_judge", CONTEXT), cast_vote("lazy_judge", CONTEXT, how="random")
    assert constant is not None
    assert drawn is not None
    assert {figure.change_ppm for domains in constant.values() for figure in domains.values()} == {-10_000}
    changes = [figure.change_ppm for domains in drawn.values() for figure in domains.values()]
    assert all(abs(change) <= 10_000 for change in changes)
    assert len(set(changes)) == 4
    wide = {"a": {index: Change(0, 1) for index in range(2_000)}}
    many = cast_vote("lazy_judge", VoteContext(wide, seed=3), how="random", change_ppm=1)
    assert many is not None
    counts = [sum(figure.change_ppm == value for figure in many["a"].values()) for value in (-1, 0, 1)]
    assert min(counts) > 580  # 667 of 2,000 each; four standard deviations are 84


def test_a_copied_vote_is_the_given_one_and_nothing_where_none_is_given() -> None:
    given: Figures = {"friend": {0: Change(7, 7), 1: Change(8, 8)}, "foreign": {0: Change(9, 9)}}
    ballot = cast_vote("copied_vote", VoteContext(HONEST, shared=given))
    assert ballot is not None
    assert ballot["friend"] == given["friend"]
    assert {figure.change_ppm for figure in ballot["other"].values()} == {0}
    sealed = cast_vote("copied_vote", VoteContext(HONEST, revealed=[given]))
    assert sealed is not None
    assert {figure.change_ppm for domains in sealed.values() for figure in domains.values()} == {0}


@pytest.mark.parametrize(
    ("changes", "is_silent"),
    [((), False), ((20_000,), False), ((20_001,), True), ((0, 90_000), False), ((0, 90_000, 90_000), True)],
)
def test_a_reveal_is_withheld_when_the_opened_figures_condemn_a_friend(
    changes: tuple[int, ...], is_silent: bool
) -> None:
    """By the lower median; harm to others is no reason."""
    revealed = [{"friend": {0: Change(change, 500)}, "other": {0: Change(900_000, 500)}} for change in changes]
    context = VoteContext(HONEST, friends=frozenset({"friend"}), revealed=revealed)
    assert cast_vote("withheld_reveal", context) == (None if is_silent else HONEST)
    assert cast_vote("withheld_reveal", context, always=1) is None


@pytest.mark.parametrize(
    ("bond", "accounts", "expected"),
    [
        (1_000, 0, (500, 500)),  # ten tickets, at most five an account
        (1_050, 0, (550, 500)),  # what is no ticket stays with the first
        (300, 0, (300,)),
        (700, 3, (300, 200, 200)),
        (1_100, 0, (400, 400, 300)),
    ],
)
def test_a_split_stake_loses_no_ticket(bond: int, accounts: int, expected: tuple[int, ...]) -> None:
    bonds = split_stake(bond, 100, 5, accounts)
    assert bonds == expected
    assert sum(bonds) == bond
    assert count_tickets(bonds, 100, 5) == bond // 100
    assert count_tickets((bond,), 100, 5) == min(5, bond // 100)


def test_a_stake_cannot_be_split_below_the_minimum_bond() -> None:
    with pytest.raises(ValueError, match="350 uflk are no 4 bonds of at least 100"):
        split_stake(350, 100, 5, 4)
    with pytest.raises(ValueError, match="99 uflk are no 1 bonds"):
        split_stake(99, 100, 5)
    with pytest.raises(ValueError, match="give positive ones"):
        split_stake(100, 0, 5)
