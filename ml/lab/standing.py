"""Where a task stands between two rounds, as the cells that played the rounds before left it.

A round's cell has the global adapter after the round as its file, and says in its result

    round       its number, from 1
    settled     of which round the candidate is that global adapter; 0: still the bare base
    best        of which round the best adapter so far is; 0: the bare base
    outcomes    by name of who sent an update: `accept`, or why not
    drawn       by name who trains in the coming round; null where everybody does
    said        what the committee said, so that the next round's cell can play the ledger again from the start
"""

from dataclasses import dataclass

from ml.adapter import GlobalAdapter, read_global
from ml.lab import Json
from ml.lab.cells import Cell, Work
from ml.spec import AdapterSpec

PLAYS = ":play_round"
"""Ends the `run` of a round's cell."""
ACCEPTED, NOT_DRAWN = "accept", "not drawn"


@dataclass(frozen=True)
class Standing:
    """Before a round; by default before a task's first."""

    number: int = 1
    current: GlobalAdapter | None = None
    """None for the bare base, as for `best`."""
    best: GlobalAdapter | None = None
    played: tuple[Json, ...] = ()
    """What the rounds before came to, the first first."""

    @property
    def settled(self) -> int:
        return int(self.played[-1]["settled"]) if self.played else 0

    @property
    def drawn(self) -> list[str] | None:
        """Who trains in this round; None for everybody."""
        found: list[str] | None = self.played[-1]["drawn"] if self.played else None
        return found


FIRST = Standing()


def read_standing(work: Work, spec: AdapterSpec) -> Standing:
    """From the rounds that the cell needs, all that were before."""
    plays = sorted((need for need in work.cell.needs if need.run.endswith(PLAYS)), key=get_round)
    if not plays:
        return FIRST
    assert [get_round(play) for play in plays] == list(range(1, len(plays) + 1))
    played = tuple(work.result(play) for play in plays)

    def read(number: int) -> GlobalAdapter | None:
        return read_global(work.file_of(plays[number - 1]), spec)[0] if number else None

    last = played[-1]
    return Standing(len(plays) + 1, read(last["settled"]), read(last["best"]), played)


def get_round(cell: Cell) -> int:
    """A cell of a single round says nothing of its number."""
    return int(cell.settings.get("round", 1))
