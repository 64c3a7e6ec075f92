"""What will happen to one seed's network: sizes, powers, faults, all drawn before the first event."""

from dataclasses import dataclass
from enum import Enum

from .dice import Dice

SAFETY_MS = 20_000
SAFETY_HEIGHTS = 6
ROUGH_MS = 5_000
"""Most seeds are through their heights by then: faults that are planned begin before."""
TOLERATED_SKEW_MS = 250
"""Two clocks differ by at most `precision_ms`."""
MAX_SKEW_MS = 30_000
FILES_PERCENT = 6
"""Seeds whose stores are real SQLite files: several times slower."""
SPARSE_PERCENT = 20
"""Seeds in which some pairs never connect, so that what is said must be passed on."""
LOST_LOG_PERCENT = 8
"""Seeds in which one node's log is gone after a crash. It may forget a lock then, so it takes the place of the faulty:
what it signed it must never sign otherwise."""


class Moment(Enum):
    """From when on the calls of a node on its ports are counted until it falls."""

    NOW = "now"
    SIGNATURE = "a new signature of its own has reached a peer"
    DECISION = "it is about to persist a block"
    COMMIT = "it is in the middle of persisting it"


@dataclass(frozen=True)
class Crash:
    """A node falls at its `calls`-th call after the next `moment`, both from `when_ms` on."""

    when_ms: int
    node: int
    moment: Moment
    calls: int = 1


@dataclass(frozen=True)
class Scenario:
    """Rates are percentages, times virtual milliseconds since the start; nodes are numbers below `n`."""

    seed: int
    n: int
    powers: tuple[int, ...]
    byzantine: tuple[int, ...]
    skews_ms: tuple[int, ...]
    clocks_right_ms: int
    """When the clocks that are far off are set right; the others stay a little wrong until all heals."""
    loss: int
    duplication: int
    tail: int
    """Share of messages that take up to `tail_ms` instead of up to `delay_ms`."""
    delay_ms: int
    tail_ms: int
    crashes: tuple[Crash, ...]
    partitions: tuple[tuple[int, int, int], ...]
    """(from, to, bit mask of one side)"""
    cuts: tuple[tuple[int, int, int, int], ...]
    """(from, to, sender, target): nothing gets through in this direction."""
    resets: tuple[tuple[int, int, int], ...]
    """(when, node, node): their connection breaks, and comes back."""
    is_on_files: bool
    falls_silent: bool
    """What the faulty validators do when all else heals: nothing, or go on."""
    loses_log: int | None = None
    """The node whose log is gone whenever it falls."""
    missing: tuple[frozenset[int], ...] = ()
    """Pairs that are never connected, after healing neither; `n` stands for the peer without a key."""

    @property
    def honest(self) -> tuple[int, ...]:
        return tuple(index for index in range(self.n) if index not in self.byzantine)


def draw_scenario(seed: int, n: int) -> Scenario:
    """Unequal powers, faulty validators with less than a third of them, and how rough this seed is."""
    dice = Dice("scenario", seed, n)
    powers, byzantine = _draw_powers(dice, n)
    loses_log = None
    if dice.chance(LOST_LOG_PERCENT):
        byzantine, loses_log = (), dice.pick([i for i in range(n) if 3 * powers[i] < sum(powers)])
    return Scenario(
        seed=seed,
        n=n,
        powers=powers,
        byzantine=byzantine,
        skews_ms=_draw_skews(dice, powers, byzantine),
        clocks_right_ms=dice.between(500, ROUGH_MS),
        loss=dice.pick((0, 0, 2, 10, 25)),
        duplication=dice.pick((0, 5, 30)),
        tail=dice.pick((0, 5, 20)),
        delay_ms=dice.pick((5, 30, 100)),
        tail_ms=dice.pick((300, 1_500)),
        crashes=tuple(
            _draw_crash(dice, dice.below(n) if loses_log is None else loses_log)
            for _ in range(dice.pick((0, 1, 2, 4, 6) if loses_log is None else (3, 5)))
        ),
        partitions=tuple(_draw_partition(dice, n) for _ in range(dice.below(3))),
        cuts=tuple(_draw_cut(dice, n) for _ in range(dice.pick((0, 0, 1, 3)))),
        resets=tuple((dice.below(ROUGH_MS), *_draw_pair(dice, n)) for _ in range(dice.pick((0, 0, 2)))),
        is_on_files=dice.chance(FILES_PERCENT),
        falls_silent=dice.chance(50),
        loses_log=loses_log,
        missing=_draw_missing(dice, n, byzantine) if dice.chance(SPARSE_PERCENT) else (),
    )


def _draw_powers(dice: Dice, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Powers, and who is faulty: two of seven, else one; in half of the seeds with as much as is possible."""
    while True:
        powers = [1] * n if n < 7 and dice.chance(30) else [dice.between(1, 10) for _ in range(n)]
        byzantine = tuple(sorted(dice.shuffled(range(n))[: 2 if n >= 7 else 1]))
        if dice.chance(50):
            last, others = byzantine[-1], sum(powers[index] for index in byzantine[:-1])
            honest = sum(powers) - powers[last] - others
            powers[last] = max(1, (honest - 1) // 2 - others)
        if 3 * sum(powers[index] for index in byzantine) < sum(powers):
            return tuple(powers), byzantine


def _draw_skews(dice: Dice, powers: tuple[int, ...], byzantine: tuple[int, ...]) -> tuple[int, ...]:
    """Everyone's clock a little wrong; in half of the seeds those of less than a third, all honest, badly."""
    n, wrong_power = len(powers), 0
    skews = [dice.between(-TOLERATED_SKEW_MS, TOLERATED_SKEW_MS) for _ in range(n)]
    if dice.chance(50):
        for index in dice.shuffled([index for index in range(n) if index not in byzantine]):
            if 3 * (wrong_power + powers[index]) < sum(powers):
                wrong_power += powers[index]
                skews[index] = dice.between(-MAX_SKEW_MS, MAX_SKEW_MS)
    return tuple(skews)


def _draw_crash(dice: Dice, node: int) -> Crash:
    """At any call, or where it hurts: around a signature that left, and around a commit."""
    when_ms = dice.below(ROUGH_MS)
    moment = dice.pick((Moment.NOW, Moment.NOW, Moment.SIGNATURE, Moment.SIGNATURE, Moment.DECISION, Moment.COMMIT))
    calls = {Moment.NOW: dice.between(1, 40), Moment.SIGNATURE: dice.between(1, 5)}.get(moment, 1)
    return Crash(when_ms, node, moment, calls)


def _draw_partition(dice: Dice, n: int) -> tuple[int, int, int]:
    begin = dice.below(ROUGH_MS)
    return begin, begin + dice.between(200, 3_000), dice.between(1, 2**n - 2)


def _draw_cut(dice: Dice, n: int) -> tuple[int, int, int, int]:
    begin = dice.below(ROUGH_MS)
    return (begin, begin + dice.between(200, 4_000), *_draw_pair(dice, n))


def _draw_pair(dice: Dice, n: int) -> tuple[int, int]:
    one = dice.below(n)
    return one, (one + dice.between(1, n - 1)) % n


def _draw_missing(dice: Dice, n: int, byzantine: tuple[int, ...]) -> tuple[frozenset[int], ...]:
    """About half of all pairs; honest nodes still reach each other, and every stranger reaches one of them."""
    honest = [index for index in range(n) if index not in byzantine]
    order = dice.shuffled(honest)
    needed = {frozenset((node, dice.pick(order[:place]))) for place, node in enumerate(order) if place}
    needed |= {frozenset((stranger, dice.pick(honest))) for stranger in (*byzantine, n)}
    pairs = [frozenset((one, other)) for one in honest for other in range(n + 1) if other > one or other in byzantine]
    return tuple(pair for pair in pairs if pair not in needed and dice.chance(50))
