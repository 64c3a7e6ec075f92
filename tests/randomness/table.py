"""The table of docs/protocol.md: who has which choice, what it gains, what it forfeits, and the exact bound."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.randomness import game
from tests.randomness.exact import compute_tail
from tests.randomness.game import SEAT, THIRD, Played, Prize, Strategy


@dataclass(frozen=True)
class Row:
    who: str
    strategy: Strategy
    draws: int
    """Draws of which it takes the best; the bound is 1 - (1 - p)^draws. 0: not bounded."""
    forfeits: Callable[[float], float]
    """Proposals forfeited in one draw, from the honest chance p."""


ROWS = (
    Row("nobody steers", game.be_honest, 1, lambda p: 0),
    Row("proposes the first block after the freeze", game.propose_first, 1, lambda p: 1 - p),
    Row("proposes the block of the draw", game.propose_last, 2, lambda p: 1 - p),
    Row("proposes both", game.propose_both, 3, lambda p: (1 - p) + (1 - p) ** 2),
    Row("a member that withholds, without a validator", game.withhold, 1, lambda p: 0),
    Row("a member that withholds until its validator proposes the draw", game.withhold_and_propose, 2, lambda p: 1 - p),
)


def compute_honest_chance(prize: Prize) -> float:
    return compute_tail(prize.accounts, prize.own, prize.seats, prize.wanted)


def compute_bound(prize: Prize, draws: int) -> float:
    """Chance that the best of so many independent draws is won."""
    return 1 - (1 - compute_honest_chance(prize)) ** draws


def make_table() -> str:
    """Markdown, the same in every run."""
    lines = [
        f"| who | best of | {SEAT.name}: bound, measured, forfeited | {THIRD.name}: bound, measured, forfeited |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        cells = [_describe(game.play(row.strategy, prize), compute_bound(prize, row.draws)) for prize in (SEAT, THIRD)]
        lines.append(f"| {row.who} | {row.draws} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _describe(played: Played, bound: float) -> str:
    return f"{bound:.1%}, {played.chance:.1%}, {played.forfeits:.2f}".replace("%", " %")
