"""`python -m tests.scenarios`: real nodes in namespaces under faults drawn from seeds. Exit 1 when one is not met."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.scenarios.namespaces import find_obstacle
from tests.scenarios.plan import SIZES, make_plan, size_of
from tests.scenarios.story import RECOVERY_BOUND_S, Report, play


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    obstacle = find_obstacle()
    if obstacle is not None:
        print(f"skipped: {obstacle}")
        return 0
    print(f"{options.seeds} scenarios from seed {options.first}; every node recovers within {RECOVERY_BOUND_S:.0f} s")
    begin = time.monotonic()
    reports = []
    for seed in range(options.first, options.first + options.seeds):
        plan = make_plan(seed, options.nodes or size_of(seed))
        folder = Path(tempfile.mkdtemp(prefix=f"flockchain-scenario-{seed}-"))
        report = play(plan, folder, lambda line: print(f"    {line}", flush=True) if options.trace else None)
        reports.append(report)
        print(format_report(report), flush=True)
        if report.finding:
            print(f"  FOUND: {report.finding}\n  replay: {plan.replay} --trace\n  logs: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    print(f"{summarise(reports)}; {time.monotonic() - begin:.0f} s")
    return int(any(report.finding for report in reports))


def format_report(report: Report) -> str:
    """One line per act under one line of figures."""
    plan, chains = report.plan, report.chains
    told = f"{chains.heights} heights, {chains.aggregated} of {chains.rounds} rounds aggregated" if chains else "-"
    if chains and plan.newcomer is not None:
        told += f", node {plan.n} came by " + ("blocks" if chains.first == 1 else f"snapshot at {chains.first}")
    frames = ", ".join(f"{count:,} {name}" for name, count in report.counted.items() if count)
    lines = [
        f"seed {plan.seed:>3}, n {plan.n}: {told}; frames: {frames}; {report.seconds:.0f} s, load {report.load:.1f}"
    ]
    for at, act in enumerate(plan.acts):
        found = report.recoveries[at] if at < len(report.recoveries) else None
        took = f"{found.decided_s:5.1f} s (all answer after {found.answer_s:4.1f} s)" if found else "not"
        lines.append(f"  {took} recovered from {act}")
    return "\n".join(lines)


def summarise(reports: list[Report]) -> str:
    recoveries_s = sorted(found.decided_s for report in reports for found in report.recoveries)
    found = [report.plan.seed for report in reports if report.finding]
    told = f"{len(reports)} scenarios, " + (f"findings in seeds {found}" if found else "no finding")
    if recoveries_s:
        told += f"; recovery: median {recoveries_s[len(recoveries_s) // 2]:.1f} s, longest {recoveries_s[-1]:.1f} s"
    return told


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description="Real nodes under seeded faults.")
    parser.add_argument("--seeds", type=int, default=20, help="how many scenarios (default 20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--nodes", type=int, choices=SIZES, help="size of every network (default: in turn)")
    parser.add_argument("--trace", action="store_true", help="say when each act begins and ends")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
