"""One short scenario over real processes; twenty long ones are `make sim`. Plans are a function of their seed."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.namespaces import find_obstacle
from tests.scenarios.plan import JOINS, KINDS, LATE, PROCESS_FAULTS, SIZES, Fault, make_plan, make_short_plan, size_of
from tests.scenarios.story import play

OBSTACLE = find_obstacle()
SEEDS = range(20)


@pytest.mark.devnet
@pytest.mark.slow
@pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
def test_a_node_killed_and_another_cut_off_recover_and_the_round_settles(tmp_path: Path) -> None:
    """Four nodes, three trainers, three judges; without two nodes nothing can be decided until both are back."""
    seed = 1
    report = play(make_short_plan(seed), tmp_path, print)
    assert not report.finding, f"seed {seed}: {report.finding}"
    assert report.chains is not None
    assert report.chains.aggregated == report.chains.rounds >= 1
    assert report.counted["cut"] > 0, "the partition cut nothing"


def test_a_seed_is_a_plan_for_ever() -> None:
    """What a report names must be what its replay command plays, on any machine and any Python."""
    assert [make_plan(seed, 7) for seed in SEEDS] == [make_plan(seed, 7) for seed in SEEDS]
    assert str(make_plan(0, 4).acts[0]) == "kill 0,1,2,3 + partition 3 | 0,1,2 for 4.3 s"
    assert str(make_plan(2, 4).acts[2]) == "loss 5 % on all for 6.9 s"
    assert str(make_plan(6, 4).acts[2]) == "straggle trainer0 for 39.7 s"


def test_the_twenty_seeds_meet_every_kind_of_fault_at_both_sizes() -> None:
    met = Counter((fault.kind, size_of(seed)) for seed in SEEDS for fault in _faults(seed))
    assert set(met) == {(kind, n) for kind in KINDS for n in SIZES}
    assert min(met.values()) >= 2


def test_every_fault_of_a_thousand_plans_has_an_effect() -> None:
    """Nodes exist, rules name two different nodes and do something, and no process suffers two faults at once."""
    for seed in range(1_000):
        n = size_of(seed)
        has_joined = False
        for act in make_plan(seed, n).acts:
            for fault in act.faults:
                has_joined = has_joined or fault.kind in JOINS
                assert fault.nodes or fault.workers or fault.rules, (seed, fault)
                assert set(fault.nodes) <= ({n} if fault.kind in JOINS else set(range(n))), (seed, fault)
                for (sender, receiver), rule in fault.rules:
                    assert sender != receiver, (seed, fault)
                    assert max(sender, receiver) < n + has_joined, (seed, fault)
                    assert rule.is_cut or rule.delay_ms or rule.loss_ppm, (seed, fault)
            assert sum(fault.kind in (*PROCESS_FAULTS, *LATE) for fault in act.faults) <= 1, (seed, act)


def test_in_each_of_a_thousand_plans_somebody_comes_late_once_and_nobody_dies_before_the_start() -> None:
    for seed in range(1_000):
        plan = make_plan(seed, size_of(seed))
        assert sum(fault.kind in LATE for fault in plan.faults) == 1, seed
        for name in plan.late_workers:
            fates = [fault.kind for fault in plan.faults if name in fault.workers]
            assert fates[0] == "late-trainer", (seed, fates)


def test_a_partition_holds_for_a_node_that_has_joined_too() -> None:
    """It stands beside the last validator: nothing passes through it from one group to another."""
    seeds = [seed for seed in range(1_000) if make_plan(seed, 4).newcomer is not None]
    for seed in seeds:
        acts = make_plan(seed, 4).acts
        joined = next(at for at, act in enumerate(acts) if act.faults[0].kind in JOINS)
        for fault in (fault for act in acts[joined:] for fault in act.faults if fault.kind == "partition"):
            cut = {way for way, _ in fault.rules}
            for other in range(3):
                assert ((4, other) in cut) == ((3, other) in cut), (seed, fault)
                assert ((other, 4) in cut) == ((other, 3) in cut), (seed, fault)


def _faults(seed: int) -> Iterator[Fault]:
    return (fault for act in make_plan(seed, size_of(seed)).acts for fault in act.faults)
