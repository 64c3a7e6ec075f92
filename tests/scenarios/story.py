"""Play one plan over real processes, and measure how long every node needs after each healing."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.scenarios.findings import Chains, check_chains, check_logs
from tests.scenarios.plan import JOINS, Act, Fault, Plan, Way
from tests.scenarios.switch import Rule
from tests.scenarios.world import Finding, World
from tests.support.processes import wait_until

RECOVERY_BOUND_S = 20.0
RECOVERY_LIMIT_S = 120.0
"""How long a late recovery is waited for, so that the report says how late it was."""
BLOCKS_AFTER_HEALING = 2
FIRST_ROUND_LIMIT_S = 120.0
ROUND_LIMIT_S = 150.0
"""Two rounds: their phases end early when all act, and after a minute each otherwise."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Counted from the end of the faults; processes that were killed are only being started then."""

    answer_s: float
    """Until every node has answered: the time in which processes start, mostly a matter of free cores."""
    decided_s: float
    """Until every node has decided two blocks more than any had before. This is what is bounded."""


@dataclass(slots=True)
class Report:
    plan: Plan
    recoveries: list[Recovery] = field(default_factory=list)
    """Of each act."""
    load: float = 0.0
    """Greatest load average of a minute, taken after each act: how busy the machine was."""
    counted: dict[str, int] = field(default_factory=dict)
    """Frames that the switch passed, lost, cut."""
    chains: Chains | None = None
    seconds: float = 0.0
    finding: str = ""


def play(plan: Plan, folder: Path, say: Callable[[str], None] = lambda _: None) -> Report:
    """Homes and logs stay in `folder`; what went wrong is `report.finding`, empty if nothing did."""
    report, begin = Report(plan), monotonic()
    try:
        with World(folder, plan) as world:
            try:
                _play(world, plan, report, say)
            except AssertionError as error:
                raise Finding(f"{error}; heights {world.ask_heights()}, round {world.ask_round()}") from error
            finally:
                report.counted = world.network.set_rules({})
        check_logs(world.homes)
        report.chains = check_chains(world.homes, world.task, plan)
    except Finding as finding:
        report.finding = str(finding)
    report.seconds = monotonic() - begin
    return report


def _play(world: World, plan: Plan, report: Report, say: Callable[[str], None]) -> None:
    world.start_nodes(range(plan.n))
    world.wait_until_ready()
    world.start_training(plan.late_workers)
    _wait(world, world.is_training, FIRST_ROUND_LIMIT_S, "no round left its first phase")
    for act in plan.acts:
        say(f"{act} (height {world.highest}, round {world.ask_round()})")
        _perturb(world, act)
        _let_pass(world, act.lasts_s)
        _heal(world, act)
        report.recoveries.append(_measure_recovery(world))
        report.load = max(report.load, os.getloadavg()[0])
        say(f"  recovered in {report.recoveries[-1].decided_s:.1f} s")
    wanted = world.ask_round() + plan.rounds_after
    _wait(world, lambda: world.ask_round() >= wanted, ROUND_LIMIT_S, f"no training round {wanted} began")
    world.kill_workers(list(world.workers))
    world.stop_nodes(list(world.nodes))
    late = [found.decided_s for found in report.recoveries if found.decided_s > RECOVERY_BOUND_S]
    if late:
        raise Finding(f"recovered after {', '.join(f'{s:.1f}' for s in late)} s, allowed are {RECOVERY_BOUND_S:.0f} s")


def _perturb(world: World, act: Act) -> None:
    rules: dict[Way, Rule] = {}
    for fault in act.faults:
        rules.update(fault.rules)
    world.network.set_rules(rules)
    for fault in act.faults:
        _begin(world, fault)


def _begin(world: World, fault: Fault) -> None:
    if fault.kind == "kill":
        world.kill_nodes(fault.nodes)
    elif fault.kind == "restart":
        world.stop_nodes(fault.nodes)
    elif fault.kind == "pause":
        world.pause_nodes(fault.nodes)
    elif fault.kind == "kill-worker":
        world.kill_workers(fault.workers)
    elif fault.kind == "disconnect":
        world.network.set_links(fault.nodes, is_up=False)
    elif fault.kind in JOINS:
        world.start_nodes(fault.nodes)
    elif fault.kind == "late-trainer":
        world.start_workers(fault.workers)
    elif fault.kind == "straggle":
        world.pause_workers(fault.workers)


def _let_pass(world: World, seconds: float) -> None:
    """A fault lasts so long by definition; meanwhile nobody may die of it."""
    end = monotonic() + seconds

    def is_over() -> bool:
        world.check_processes()
        world.ask_heights()
        return monotonic() >= end

    wait_until(is_over, seconds + 60)


def _heal(world: World, act: Act) -> None:
    world.network.set_rules({})
    world.resume_nodes()
    for fault in act.faults:
        if fault.kind == "disconnect":
            world.network.set_links(fault.nodes, is_up=True)
        if fault.kind in ("kill", "restart"):
            world.start_nodes(fault.nodes)
        if fault.kind == "kill-worker":
            world.start_workers(fault.workers)
        if fault.kind == "straggle":
            world.resume_workers(fault.workers)


def _measure_recovery(world: World) -> Recovery:
    begin, wanted = monotonic(), world.highest + BLOCKS_AFTER_HEALING
    _wait(world, lambda: min(world.ask_heights()) >= 0, RECOVERY_LIMIT_S, "not all nodes answered")
    answer_s = monotonic() - begin
    _wait(world, lambda: min(world.ask_heights()) >= wanted, RECOVERY_LIMIT_S, f"not all nodes reached {wanted}")
    return Recovery(answer_s, monotonic() - begin)


def _wait(world: World, predicate: Callable[[], bool], limit_s: float, otherwise: str) -> None:
    def check() -> bool:
        world.check_processes()
        return predicate()

    try:
        wait_until(check, limit_s)
    except AssertionError:
        heights = world.ask_heights()
        raise Finding(
            f"{otherwise} within {limit_s:.0f} s: heights {heights}, training round {world.ask_round()}"
        ) from None
