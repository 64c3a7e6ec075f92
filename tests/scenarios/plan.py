"""What happens in a scenario, drawn from its seed: acts of one or two faults, each healed before the next begins.

Among them, at a place of its own, is an act of somebody who comes late: a full node that joins, a trainer that starts
rounds after the others, or one that stands still for longer than the phases that wait for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from random import Random
from typing import TypeVar

from tests.scenarios.switch import Rule

ACTS = 3
PROCESS_FAULTS = ("kill", "pause", "restart", "kill-worker")
NETWORK_FAULTS = ("disconnect", "partition", "one-way", "delay", "loss")
JOINS = ("join-by-snapshot", "join-by-blocks")
LATE = (*JOINS, "late-trainer", "straggle")
KINDS = (*PROCESS_FAULTS, *NETWORK_FAULTS, *LATE)
TRAINERS = ("trainer0", "trainer1", "trainer2")
WORKERS = (*TRAINERS, "judge0", "judge1", "judge2")
SIZES = (4, 7)
T = TypeVar("T", int, str)
CUT = Rule(is_cut=True)
STRAGGLES_S = (36.0, 44.0)
"""Long enough for a round that waits for the submission, and another for its bytes: PHASES_MS of the world."""
Way = tuple[int, int]
"""(sender, receiver)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`nodes` of kill, pause, restart, disconnect and the joins; `workers` of kill-worker, late-trainer and straggle;
    `rules` of all others."""

    kind: str
    what: str
    """Its details in words, for the report."""
    nodes: tuple[int, ...] = ()
    workers: tuple[str, ...] = ()
    rules: tuple[tuple[Way, Rule], ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


@dataclass(frozen=True, slots=True)
class Act:
    faults: tuple[Fault, ...]
    lasts_s: float

    def __str__(self) -> str:
        return f"{' + '.join(map(str, self.faults))} for {self.lasts_s} s"


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    n: int
    acts: tuple[Act, ...]
    rounds_after: int = 2
    """Training rounds that must settle after the last healing: the one under way, and one that began in peace."""

    @property
    def newcomer(self) -> Fault | None:
        """The act's part in which a full node without a key joins; its number is `n`."""
        return next((fault for fault in self.faults if fault.kind in JOINS), None)

    @property
    def late_workers(self) -> frozenset[str]:
        """Who does not start with the others."""
        return frozenset(name for fault in self.faults if fault.kind == "late-trainer" for name in fault.workers)

    @property
    def stragglers(self) -> frozenset[str]:
        return frozenset(name for fault in self.faults if fault.kind == "straggle" for name in fault.workers)

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(fault for act in self.acts for fault in act.faults)

    @property
    def replay(self) -> str:
        return f"python -m tests.scenarios --first {self.seed} --seeds 1 --nodes {self.n}"


def size_of(seed: int) -> int:
    return SIZES[seed % len(SIZES)]


def make_plan(seed: int, n: int) -> Plan:
    """The same for the same (seed, n), on any machine. Kinds come in turn over the seeds, so that none is rare."""
    random, kinds = Random(f"scenario/{seed}/{n}"), (*PROCESS_FAULTS, *NETWORK_FAULTS)
    acts = [_make_act(random, kinds[(seed * ACTS + at) % len(kinds)], n) for at in range(ACTS)]
    return Plan(seed, n, _add_late_act(Random(f"late/{seed}/{n}"), LATE[seed // 2 % len(LATE)], acts, n))


def make_short_plan(seed: int) -> Plan:
    """One act for `make test`: of four nodes one is killed while another is cut off from the rest."""
    random = Random(f"short/{seed}")
    killed, alone, *rest = _sample_in_order(random, 4)
    cut = sorted([*_ways([alone], [killed, *rest]), *_ways([killed, *rest], [alone])])
    partition = Fault("partition", f"{alone} | {_list(sorted([killed, *rest]))}", rules=tuple((w, CUT) for w in cut))
    return Plan(seed, 4, (Act((_of_nodes("kill", (killed,)), partition), 2.0),), rounds_after=1)


def _make_act(random: Random, kind: str, n: int) -> Act:
    faults = [_make_fault(random, kind, n)]
    if random.random() < 0.4:  # a second one from the other family: no node is both killed and paused
        other = NETWORK_FAULTS if kind in PROCESS_FAULTS else PROCESS_FAULTS
        faults.append(_make_fault(random, random.choice(other), n))
    return Act(tuple(faults), _draw_seconds(random))


def _add_late_act(random: Random, kind: str, acts: Sequence[Act], n: int) -> tuple[Act, ...]:
    """Put one more act among the others, which stay as they are but for the ways of a node that has joined.

    Nobody can be killed before it started, so a trainer is late to an act that is not after its first death. Before
    the first act there is no snapshot yet. A straggler suffers alone: that the round goes on without it is the claim.
    """
    trainer = random.choice(TRAINERS)
    deaths = [at for at, act in enumerate(acts) if any(trainer in fault.workers for fault in act.faults)]
    last = deaths[0] if deaths and kind == "late-trainer" else len(acts)
    place = random.randint(int(kind == "join-by-snapshot"), last)
    late = _of_nodes(kind, (n,)) if kind in JOINS else Fault(kind, trainer, workers=(trainer,))
    if kind == "straggle":
        act = Act((late,), round(random.uniform(*STRAGGLES_S), 1))
    else:
        others = [_make_fault(random, random.choice(NETWORK_FAULTS), n)] if random.random() < 0.4 else []
        act = Act((late, *others), _draw_seconds(random))
    after = [act, *acts[place:]]
    return (*acts[:place], *([_place_beside(one, n - 1, n) for one in after] if kind in JOINS else after))


def _place_beside(act: Act, old: int, new: int) -> Act:
    """What happens to the ways of `old` happens to those of `new`: else it would pass on what a partition holds up."""
    return replace(act, faults=tuple(replace(fault, rules=_double(fault.rules, old, new)) for fault in act.faults))


def _double(rules: tuple[tuple[Way, Rule], ...], old: int, new: int) -> tuple[tuple[Way, Rule], ...]:
    beside = [
        ((new if sender == old else sender, new if receiver == old else receiver), rule)
        for (sender, receiver), rule in rules
        if old in (sender, receiver)
    ]
    return (*rules, *beside)


def _draw_seconds(random: Random) -> float:
    """Mostly shorter than any timeout; some past TCP's longer pauses; few past the time after which an idle connection
    is given up (30 s) and long enough for redials to become rare."""
    low, high = random.choices([(2, 8), (12, 28), (35, 90)], weights=[70, 20, 10])[0]
    return round(random.uniform(low, high), 1)


def _make_fault(random: Random, kind: str, n: int) -> Fault:
    if kind in ("kill", "pause", "restart", "disconnect"):
        return _of_nodes(kind, _draw_nodes(random, n))
    if kind == "kill-worker":
        workers = _sample(random, WORKERS, random.randint(1, 2))
        return Fault(kind, ",".join(workers), workers=workers)
    if kind == "partition":
        return _partition(random, n)
    if kind == "one-way":
        return _one_way(random, n)
    return _weaken(random, kind, n)


def _of_nodes(kind: str, nodes: tuple[int, ...]) -> Fault:
    return Fault(kind, _list(nodes), nodes=nodes)


def _draw_nodes(random: Random, n: int) -> tuple[int, ...]:
    """One node in half of the cases; else some; in a fifth all of them at once."""
    share = random.random()
    return _sample(random, range(n), 1 if share < 0.5 else n if share > 0.8 else random.randint(2, n - 1))


def _partition(random: Random, n: int) -> Fault:
    """Two or three groups, none empty."""
    order = _sample_in_order(random, n)
    edges = sorted(random.sample(range(1, n), random.choice([1, 1, 2])))
    groups = [order[a:b] for a, b in zip([0, *edges], [*edges, n], strict=True)]
    cut = [way for a, b in permutations(groups, 2) for way in _ways(a, b)]
    what = " | ".join(_list(sorted(group)) for group in groups)
    return Fault("partition", what, rules=tuple((way, CUT) for way in sorted(cut)))


def _one_way(random: Random, n: int) -> Fault:
    """Some are no longer heard by some others, but hear them."""
    order = _sample_in_order(random, n)
    senders, receivers = order[: random.randint(1, n // 2)], order[n // 2 :][: random.randint(1, n)]
    rules = tuple((way, CUT) for way in sorted(_ways(senders, receivers)))
    return Fault("one-way", f"{_list(sorted(senders))} not heard by {_list(sorted(receivers))}", rules=rules)


def _weaken(random: Random, kind: str, n: int) -> Fault:
    """Delay or loss, on all ways or on those of one node."""
    if kind == "delay":
        delay_ms, jitter_ms = random.randint(20, 250), random.randint(0, 150)
        rule, what = Rule(delay_ms=delay_ms, jitter_ms=jitter_ms), f"{delay_ms}+{jitter_ms} ms"
    else:
        loss_percent = random.randint(2, 25)
        rule, what = Rule(loss_ppm=loss_percent * 10_000), f"{loss_percent} %"
    only = random.choice([None, random.randrange(n)])
    ways = [way for way in permutations(range(n), 2) if only is None or only in way]
    return Fault(kind, f"{what} on {'all' if only is None else only}", rules=tuple((way, rule) for way in ways))


def _sample_in_order(random: Random, n: int) -> list[int]:
    return random.sample(range(n), n)


def _sample(random: Random, choices: Sequence[T], count: int) -> tuple[T, ...]:
    return tuple(sorted(random.sample(choices, count)))


def _ways(senders: Iterable[int], receivers: Sequence[int]) -> list[Way]:
    return [(sender, receiver) for sender in senders for receiver in receivers]


def _list(nodes: Iterable[int]) -> str:
    return ",".join(map(str, nodes))
