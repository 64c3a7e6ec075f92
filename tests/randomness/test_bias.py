"""Strategies gain what the bound says and no more, on fixed seeds; the table in docs/protocol.md is what they print."""

from pathlib import Path

import pytest

from tests.randomness import game
from tests.randomness.game import SEAT, THIRD, TRIALS, Prize, play
from tests.randomness.table import ROWS, Row, compute_bound, compute_honest_chance, make_table

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


def compute_error(chance: float) -> float:
    """Four standard errors of a frequency over all trials."""
    return 4 * (chance * (1 - chance) / TRIALS) ** 0.5


@pytest.mark.parametrize("prize", [SEAT, THIRD], ids=["seat", "third"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.who)
def test_a_strategy_wins_as_often_as_its_bound_and_pays_its_price(row: Row, prize: Prize) -> None:
    played, bound = play(row.strategy, prize), compute_bound(prize, row.draws)
    assert abs(played.chance - bound) <= compute_error(bound)
    price = row.forfeits(compute_honest_chance(prize))
    assert abs(played.forfeits - price) <= 8 * TRIALS**-0.5


def test_two_own_proposals_never_beat_the_best_of_four_draws() -> None:
    """Not even with knowledge of what others would reveal: 2^k for k own proposals."""
    clairvoyant, real = play(game.propose_both_knowing_all, SEAT), play(game.propose_both, SEAT)
    bound = compute_bound(SEAT, 4)
    assert abs(clairvoyant.chance - bound) <= compute_error(bound)
    assert real.chance < clairvoyant.chance


def test_three_blocks_in_a_row_escape_the_bound() -> None:
    """The limit that docs/protocol.md states: who proposes the freeze too chooses the candidates for free."""
    played = play(game.propose_three_in_a_row, SEAT)
    assert (played.chance, played.forfeits) == (1.0, 0)


def test_the_document_shows_this_table() -> None:
    assert make_table() in PROTOCOL.read_text(), "docs/protocol.md: paste what `python -m tests.randomness` prints"
