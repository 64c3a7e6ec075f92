"""`noise`: what chance alone does to honest work, on measured adapters: how often it is left out, how often slashed.

Real honest adapters of the bank, each judged by committees whose members hold documents drawn anew; the verdicts are
`execution.verdict`'s. Drawing documents shows the sampling error. The part between adapters is bounded by the real
adapters alone: a thousand committees over one adapter are one adapter.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from flockchain.execution.draw import Judge
from flockchain.execution.verdict import compute_verdicts
from flockchain.types.rows import Assignment
from flockchain.types.task import AdapterFigures, DomainFigure, TaskSpec
from ml.figures import Change
from ml.lab import Json
from ml.lab.bank import HONEST, Bank, Holder, MeasuredAdapter, plan_bank, read_bank
from ml.lab.cells import Cell, Work
from ml.lab.settings import Settings
from ml.lab.statistics import compute_rate_bound
from ml.lab.task import make_meter_spec, make_task_spec

ROOT = b"r" * 32


def plan(settings: Settings) -> list[Cell]:
    """One cell per holdout size: it draws the judges once and replays them under every margin, tolerance and size of
    committee; one cell for stopping early.
    """
    bank = tuple(plan_bank(settings))
    names = ("task", "judges", "proposals", "z_milli", "tolerance_ppm", "seats")
    shared = {name: settings[name] for name in names} | {"domains": sorted(settings["bank"]["domains"])}
    return [
        Cell(
            f"documents-{documents}/seed-{seed}",
            "ml.lab.noise:judge_all",
            {**shared, "documents": documents, "seed": seed},
            bank,
        )
        for documents in settings["documents"]
        for seed in settings.seeds
    ]


def judge_all(work: Work) -> Json:
    """By margin, tolerance and seats: honest proposals, by domain of their author, and what became of each adapter."""
    settings, bank = work.settings, read_bank(work.cell.needs, work)
    rng = random.Random(f"noise {settings['seed']} {settings['documents']}")  # noqa: S311 - draws of an experiment
    meter = make_meter_spec(settings["task"])
    holders = [Holder(bank, meter, settings["documents"], rng) for _ in range(settings["judges"])]
    honest = bank.find(HONEST)
    draws = [
        (honest[at % len(honest)], rng.sample(range(len(holders)), max(settings["seats"])))
        for at in range(settings["proposals"])
    ]
    cases = {}
    for z_milli in settings["z_milli"]:
        for tolerance_ppm in settings["tolerance_ppm"]:
            for seats in settings["seats"]:
                task = {**settings["task"], "z_milli": z_milli, "tolerance_ppm": tolerance_ppm, "seats": seats}
                spec = make_task_spec(task, settings["domains"], "merit", 1)
                name = f"z-{z_milli}/tolerance-{tolerance_ppm}/seats-{seats}"
                cases[name] = _judge_case(spec, bank, holders, draws, seats)
    return {"cases": cases, "early": _stop_early(settings, holders, honest), "adapters": len(honest)}


def _judge_case(
    spec: TaskSpec,
    bank: Bank,
    holders: Sequence[Holder],
    draws: Sequence[tuple[MeasuredAdapter, list[int]]],
    seats: int,
) -> Json:
    """Proposals, left out and slashed, by the author's domain; adapters that were slashed at least once."""
    by_author: dict[str, dict[str, int]] = {}
    slashed_adapters = set()
    for adapter, members in draws:
        outcome = judge_once(spec, bank, [holders[member] for member in members[:seats]], adapter)
        counts = by_author.setdefault(adapter.author, {"proposals": 0, "left out": 0, "slashed": 0})
        counts["proposals"] += 1
        counts["left out"] += outcome != "accept"
        counts["slashed"] += outcome == "reject"
        if outcome == "reject":
            slashed_adapters.add((adapter.author, adapter.number))
    return {"authors": by_author, "slashed adapters": len(slashed_adapters)}


def judge_once(spec: TaskSpec, bank: Bank, committee: Sequence[Holder], adapter: MeasuredAdapter) -> str:
    """The verdict of a committee with one seat each."""
    judges = [Judge(bytes([at]) * 20, 1, tuple(range(len(spec.domains)))) for at in range(len(committee))]
    ballots = {
        judge.address: (_make_entry(spec, holder, adapter),) for judge, holder in zip(judges, committee, strict=True)
    }
    (verdict,) = compute_verdicts(
        spec,
        submissions=[(ROOT, bytes(20))],
        published=[ROOT],
        judges=judges,
        assignments=[Assignment(judge.address, (ROOT,)) for judge in judges],
        ballots=ballots,
    )
    return verdict.outcome


def _make_entry(spec: TaskSpec, holder: Holder, adapter: MeasuredAdapter) -> AdapterFigures:
    figures = []
    for index, domain in enumerate(spec.domains):
        change = holder.measure(adapter, domain)
        if change is not None:
            figures.append(DomainFigure(index, change.change_ppm, change.se_ppm, change.change_ppm, change.se_ppm))
    return AdapterFigures(ROOT, "scored", "", tuple(figures), ())


# Stopping early


def compute_early_z(z: float) -> float:
    """The O'Brien-Fleming boundary of the first of two equal looks whose second one is `z`: `z * sqrt(2)`.

    O'Brien and Fleming, Biometrics 35 (1979).
    """
    return z * 2**0.5


def compute_two_look_error(z: float, early_z: float, steps: int = 20_000) -> float:
    """Chance that a figure without effect passes `early_z` at half of its documents or `z` at all of them.

    Exact for normal figures: the second look is (first + independent)/sqrt(2); integrated by the midpoint rule.
    """
    normal = NormalDist()
    width = (early_z + 9.0) / steps
    late = 0.0
    for step in range(steps):
        first = -9.0 + (step + 0.5) * width
        late += normal.pdf(first) * (1 - normal.cdf(z * 2**0.5 - first)) * width
    return 1 - normal.cdf(early_z) + late


def _stop_early(settings: Mapping[str, Any], holders: Sequence[Holder], honest: Sequence[MeasuredAdapter]) -> Json:
    """Per figure: whether half of the documents settle it, and whether that is what all of them say."""
    task = settings["task"]
    counts = {"figures": 0, "settled at half": 0, "otherwise at the end": 0}
    for holder in holders:
        for adapter in honest:
            for domain in settings["domains"]:
                half = holder.measure(adapter, domain, settings["documents"] // 2)
                whole = holder.measure(adapter, domain)
                if half is None or whole is None:
                    continue
                counts["figures"] += 1
                said = _say(half, compute_early_z(task["z_milli"] / 1000), task["tolerance_ppm"])
                counts["settled at half"] += said != "open"
                counts["otherwise at the end"] += said not in (
                    "open",
                    _say(whole, task["z_milli"] / 1000, task["tolerance_ppm"]),
                )
    return counts


def _say(change: Change, z: float, tolerance_ppm: int) -> str:
    if change.change_ppm - z * change.se_ppm > tolerance_ppm:
        return "harm"
    return "help" if change.change_ppm + z * change.se_ppm < 0 else "open"


# What it comes to


def summarize(settings: Settings, results: Mapping[str, Json]) -> Json:
    """By case: rates over all proposals of all seeds, the worst domain's, and exact bounds."""
    figures: Json = {}
    for documents in settings["documents"]:
        found = [results[f"documents-{documents}/seed-{seed}"] for seed in settings.seeds]
        for case in found[0]["cases"]:
            place = f"documents-{documents}/{case}"
            for what in ("left out", "slashed"):
                figures[f"{place}/{what}"] = _rate([one["cases"][case]["authors"] for one in found], what)
            worst = max(one["cases"][case]["slashed adapters"] for one in found)
            adapters = found[0]["adapters"]
            bound = compute_rate_bound(worst, adapters)
            figures[f"{place}/slashed adapters"] = {
                "mean": worst / adapters,
                "upper": bound,
                "n": adapters,
                "by_seed": [],
            }
        early = [one["early"] for one in found]
        for what in ("settled at half", "otherwise at the end"):
            values = [one[what] / max(1, one["figures"]) for one in early]
            total = sum(one["figures"] for one in early)
            figures[f"documents-{documents}/{what}"] = {
                "mean": sum(one[what] for one in early) / max(1, total),
                "upper": None,
                "n": total,
                "by_seed": values,
            }
    return figures


def _rate(found: Sequence[Mapping[str, Mapping[str, int]]], what: str) -> Json:
    """Over all proposals; `worst` is the domain with the highest rate."""
    totals: dict[str, list[int]] = {}
    by_seed = []
    for authors in found:
        for author, counts in authors.items():
            total = totals.setdefault(author, [0, 0])
            total[0] += counts[what]
            total[1] += counts["proposals"]
        by_seed.append(sum(c[what] for c in authors.values()) / sum(c["proposals"] for c in authors.values()))
    events, trials = (sum(total[at] for total in totals.values()) for at in (0, 1))
    worst = max(totals, key=lambda author: totals[author][0] / totals[author][1])
    return {
        "mean": events / trials,
        "upper": compute_rate_bound(events, trials),
        "n": trials,
        "by_seed": by_seed,
        "worst": {"domain": worst.partition("/")[2], "rate": totals[worst][0] / totals[worst][1]},
    }


def report(document: Json) -> str:
    settings, figures = document["settings"], document["figures"]
    bank, usual = settings["bank"], settings["usual"]
    z = settings["task"]["z_milli"] / 1000
    error, plain = compute_two_look_error(z, compute_early_z(z)), 1 - NormalDist().cdf(z)
    lines = [
        f"{bank['honest'] * len(bank['domains'])} honest adapters of the {bank['base']} model, each trained for real "
        f"on its own documents, measured on {bank['pool_documents']} documents of each domain that none of them saw. "
        f"Judges hold so many of these documents; {settings['proposals']:,} proposals a seed, each with a committee "
        "drawn anew. Left out: any verdict but accept. The bound in brackets is the exact one-sided 95 % bound over "
        "proposals, for the sampling of documents and committees; the last column bounds what another adapter could "
        "do, by the real adapters alone: adapters that were ever slashed, of all.",
        "| documents | z | tolerance | seats | left out | worst domain | slashed | adapters ever slashed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for documents in settings["documents"]:
        for z_milli in settings["z_milli"]:
            for tolerance in settings["tolerance_ppm"]:
                for seats in settings["seats"]:
                    place = f"documents-{documents}/z-{z_milli}/tolerance-{tolerance}/seats-{seats}"
                    left, slashed = figures[f"{place}/left out"], figures[f"{place}/slashed"]
                    ever = figures[f"{place}/slashed adapters"]
                    mark = " (default)" if [documents, z_milli, tolerance, seats] == usual else ""
                    lines.append(
                        f"| {documents}{mark} | {z_milli / 1000:.1f} | {tolerance / 10_000:.2f} % | {seats} "
                        f"| {left['mean']:.2%} (< {left['upper']:.2%}) | {left['worst']['domain']} "
                        f"{left['worst']['rate']:.1%} | {slashed['mean']:.3%} (< {slashed['upper']:.3%}) "
                        f"| {ever['mean'] * ever['n']:.0f} of {ever['n']} (< {ever['upper']:.1%}) |"
                    )
    lines += [
        "",
        "## Stopping early",
        "",
        f"Two looks, at half of the documents and at all, with O'Brien and Fleming's boundary (z of {z * 2**0.5:.2f}, "
        f"then {z:.2f}): a figure without effect passes one of them with a chance of {error:.3e}, against {plain:.3e} "
        "with one look. What half of the documents settle need not be measured further.",
        "",
        "| documents | figures settled at half | forward tokens saved | said otherwise by all documents |",
        "|---|---|---|---|",
    ]
    for documents in settings["documents"]:
        half, other = (figures[f"documents-{documents}/{what}"] for what in ("settled at half", "otherwise at the end"))
        lines.append(f"| {documents} | {half['mean']:.1%} | {half['mean'] / 2:.1%} | {other['mean']:.2%} |")
    return "\n".join([lines[0], "", *lines[1:]])


def plot(document: Json, folder: Path) -> Sequence[Path]:
    """Left out over z, a line per holdout size, at the usual tolerance and seats; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    settings = document["settings"]
    _, _, tolerance, seats = settings["usual"]
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    ax = figure.subplots()
    for documents in settings["documents"]:
        names = [
            f"documents-{documents}/z-{z}/tolerance-{tolerance}/seats-{seats}/left out" for z in settings["z_milli"]
        ]
        rates = [100 * document["figures"][name]["mean"] for name in names]
        ax.plot([z / 1000 for z in settings["z_milli"]], rates, marker="o", label=f"{documents} documents")
    ax.set(xlabel="z", ylabel="honest proposals left out, %")
    ax.legend(fontsize="small")
    path = folder / "noise.svg"
    figure.savefig(path, metadata={"Date": None})
    return [path]
