"""One draw as a game, on beacons alone: what strategies gain and what they forfeit, over many seeds.

`test_choices.py` shows on real blocks that nothing enters but which links were shown. A link that an honest validator
has not shown is known to nobody else; a coalition knows all its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product

from flockchain.crypto import sha256
from flockchain.execution.draw import compute_draw
from flockchain.types.rows import Candidate, Draw

TRIALS = 2_000


@dataclass(frozen=True)
class Prize:
    """What the attacker wants of a draw. Every account has one ticket; `own` of them are the attacker's."""

    name: str
    accounts: int
    own: int
    seats: int
    wanted: int
    """Own seats that count as won."""

    def is_won(self, beacon: bytes, place: int = 0) -> bool:
        """Whether the draw with this beacon is won by own accounts that stand at `place` among the addresses."""
        rows = tuple(Candidate(_address(i), 10, 1, ()) for i in range(self.accounts))
        draw = Draw(1, 1, "trainer", 2, self.seats, 1, rows, b"", 0, ())
        _, drawn = compute_draw(draw, beacon, domains=0, max_attempts=1)
        own = {_address(i) for i in range(place, place + self.own)}
        return sum(member.address in own for member in drawn) >= self.wanted


SEAT = Prize("the one seat, with 4 of 20 tickets", accounts=20, own=4, seats=1, wanted=1)
THIRD = Prize("4 of 9 seats, with 6 of 30 tickets", accounts=30, own=6, seats=9, wanted=4)


@dataclass(frozen=True)
class Played:
    won: int
    forfeited: int
    trials: int

    @property
    def chance(self) -> float:
        return self.won / self.trials

    @property
    def forfeits(self) -> float:
        """Proposals given up in one draw, on average."""
        return self.forfeited / self.trials


Strategy = Callable[[Prize, int], tuple[bool, int]]
"""(prize, trial) -> (won, proposals forfeited)."""


@cache
def play(strategy: Strategy, prize: Prize) -> Played:
    results = [strategy(prize, trial) for trial in range(TRIALS)]
    return Played(sum(won for won, _ in results), sum(count for _, count in results), TRIALS)


def be_honest(prize: Prize, trial: int) -> tuple[bool, int]:
    return prize.is_won(_mix(_mix(_frozen(trial), _link(trial, 1)), _link(trial, 2))), 0


def propose_first(prize: Prize, trial: int) -> tuple[bool, int]:
    """Owns the first block after the freeze. The second's link is unknown to it: it plays on a guess, in vain."""
    own, other = _link(trial, 1), _link(trial, 1, round=1)
    guess = _link(trial, 2, round=99)
    skips = not prize.is_won(_mix(_mix(_frozen(trial), own), guess))
    beacon = _mix(_frozen(trial), other if skips else own)
    return prize.is_won(_mix(beacon, _link(trial, 2))), int(skips)


def propose_last(prize: Prize, trial: int) -> tuple[bool, int]:
    """Owns the block of the draw: sees the draw with its own link, and skips one that it does not like."""
    before = _mix(_frozen(trial), _link(trial, 1))
    if prize.is_won(_mix(before, _link(trial, 2))):
        return True, 0
    return prize.is_won(_mix(before, _link(trial, 2, round=1))), 1


def propose_both(prize: Prize, trial: int) -> tuple[bool, int]:
    """Owns both blocks after the freeze: three draws, one after another, for two proposals forfeited."""
    frozen, own, last = _frozen(trial), _link(trial, 1), _link(trial, 2)
    if prize.is_won(_mix(_mix(frozen, own), last)):
        return True, 0
    after = _mix(frozen, _link(trial, 1, round=1))
    if prize.is_won(_mix(after, last)):
        return True, 1
    return prize.is_won(_mix(after, _link(trial, 2, round=1))), 2


def propose_both_knowing_all(prize: Prize, trial: int) -> tuple[bool, int]:
    """The bound: it owns both blocks and knows even what others would reveal: the best of four draws."""
    frozen, best = _frozen(trial), (False, 0)
    for first, second in sorted(product((0, 1), repeat=2), key=sum):
        beacon = _mix(_mix(frozen, _link(trial, 1, round=first)), _link(trial, 2, round=second))
        if prize.is_won(beacon):
            return True, first + second
    return best


def withhold(prize: Prize, trial: int) -> tuple[bool, int]:
    """A member without a validator: it ends the phase in the block of its choice, by whatever it can see.

    It waits, up to eight blocks, until a draw with guessed links would be won.
    """
    for block in range(8):
        frozen, guess = _frozen(trial, block), _link(trial, 1, round=99)
        if prize.is_won(_mix(_mix(frozen, guess), guess)) or block == 7:
            return prize.is_won(_mix(_mix(frozen, _link(trial, 1 + block)), _link(trial, 2 + block))), 0
    raise AssertionError("unreachable")


def withhold_and_propose(prize: Prize, trial: int) -> tuple[bool, int]:
    """A member with a validator ends the phase two blocks before its own turn, so that every draw falls to it."""
    return propose_last(prize, trial)


def propose_three_in_a_row(prize: Prize, trial: int) -> tuple[bool, int]:
    """Proposes the freeze and both blocks after it: knows the draw, and lets accounts enrol whose addresses win."""
    beacon = _mix(_mix(_frozen(trial), _link(trial, 1)), _link(trial, 2))
    return any(prize.is_won(beacon, place) for place in range(prize.accounts - prize.own + 1)), 0


def _frozen(trial: int, block: int = 0) -> bytes:
    """Beacon at the end of the block in which the candidates are frozen."""
    return sha256(b"frozen", trial.to_bytes(8, "big"), block.to_bytes(8, "big"))


def _link(trial: int, height: int, round: int = 0) -> bytes:
    """The link that the proposer of this consensus round would show, `height` blocks after the freeze."""
    return sha256(b"link", trial.to_bytes(8, "big"), height.to_bytes(8, "big"), round.to_bytes(8, "big"))


def _mix(beacon: bytes, link: bytes) -> bytes:
    return sha256(beacon, link)


def _address(index: int) -> bytes:
    return index.to_bytes(20, "big")
