"""What `screens` found: detection and false alarm per screen with exact intervals, at the shipped and at a calibrated
threshold, per attack and per domain, what it costs, and what each attack's backdoor could do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml.lab import Json
from ml.lab.settings import Settings
from ml.lab.statistics import compute_mean, compute_rate_bound

ALARMING = "any that alarms"
"""The combination: an adapter is left out when one screen's alarm is raised."""
CONTROLS = ("with", "without", "random")
Results = Mapping[str, Any]


@dataclass(frozen=True)
class _Row:
    """One screened adapter: `which` is its domain or its attack."""

    seed: str
    kind: str
    which: str
    found: Json

    def has_alarm(self, screen: str) -> bool | None:
        """None where the screen says nothing."""
        said = self.found["screens"]
        if screen == ALARMING:
            return any(item["alarm"] for item in said.values())
        return bool(said[screen]["alarm"]) if screen in said else None


def summarize(settings: Settings, results: Results) -> Json:
    """Names: `SCREEN/detection/ATTACK`, `SCREEN/false/DOMAIN` (`all` beside them) at the shipped thresholds, the same
    under `SCREEN/calibrated/` at the highest honest value of the calibration seeds, tried on the other seeds.
    """
    rows = [_make_row(name, found) for name, found in sorted(results.items())]
    screens = sorted({screen for row in rows for screen in row.found["screens"]})
    figures: Json = {}
    for screen in (*screens, ALARMING):
        figures |= _count(screen, [(row, row.has_alarm(screen)) for row in rows])
    calibration = {str(seed) for seed in settings["calibration_seeds"]}
    for screen in screens:
        figures |= _calibrate(screen, [row for row in rows if screen in row.found["screens"]], calibration)
        for unit in ("tokens", "seconds"):
            spent = [float(row.found["screens"][screen][unit]) for row in rows if screen in row.found["screens"]]
            figures[f"{screen}/{unit}"] = _describe(spent, [], max(spent))
    for row in rows:
        if row.kind == "attack":
            same = [other for other in rows if (other.kind, other.which) == (row.kind, row.which)]
            for control in CONTROLS:
                rates = [(other.seed, float(other.found["success"][control])) for other in same]
                worst = max(rate for _, rate in rates)
                figures[f"asr/{row.which}/{control}"] = _describe([rate for _, rate in rates], rates, worst)
    return figures


def _make_row(name: str, found: Json) -> _Row:
    seed, kind, which, *_ = name.split("/")
    return _Row(seed, kind, which, found)


def _calibrate(screen: str, rows: Sequence[_Row], calibration: set[str]) -> Json:
    honest = [row.found["screens"][screen]["value"] for row in rows if row.kind == "honest" and row.seed in calibration]
    if not honest:
        return {}
    name, threshold = f"{screen}/calibrated", max(honest)
    tried = [(row, row.found["screens"][screen]["value"] > threshold) for row in rows if row.seed not in calibration]
    return {f"{name}/threshold": _describe([float(threshold)], [], float(threshold)), **_count(name, tried)}


def report(document: Json) -> str:
    """Tables of shares with counts, and exact one-sided 95 % bounds (Clopper and Pearson)."""
    figures = document["figures"]
    screens = sorted({name.split("/")[0] for name in figures} - {"asr", ALARMING})
    calibrated = [screen for screen in screens if f"{screen}/calibrated/threshold" in figures]
    seeds = ", ".join(map(str, document["settings"]["calibration_seeds"]))
    attacks = sorted({name.split("/")[1] for name in figures if name.startswith("asr/")})
    success = [[attack, *(f"{figures[f'asr/{attack}/{c}']['mean']:.2f}" for c in CONTROLS)] for attack in attacks]
    cost = [
        [screen, f"{figures[f'{screen}/tokens']['mean']:,.0f}", f"{figures[f'{screen}/seconds']['mean']:.2f}"]
        for screen in screens
    ]
    return "\n\n".join(
        [
            "Cells count adapters. False alarms carry the upper 95 % bound of their rate, detections the lower one.",
            "## What the backdoors do at the strength in which they are screened",
            _table(("attack", "ASR", "no trigger", "random tokens"), success),
            "## At the shipped thresholds",
            _rates(figures, [*screens, ALARMING], attacks, ""),
            "## At the highest honest value of the calibration seeds",
            f"Calibrated on seeds {seeds}, tried on the others. With k honest values the false alarm rate of an "
            "exchangeable adapter is 1/(k+1) at most.",
            _rates(figures, calibrated, attacks, "/calibrated"),
            "## Cost of one adapter",
            _table(("screen", "forward tokens, mean", "seconds, mean"), cost),
        ]
    )


def _rates(figures: Json, screens: Sequence[str], attacks: Sequence[str], part: str) -> str:
    domains = sorted({name.split("/")[-1] for name in figures if "/false/" in name} - {"all"})
    head = (
        "screen",
        *(f"detects {attack}" for attack in attacks),
        *(f"false: {domain}" for domain in domains),
        "false: all",
    )
    rows = []
    for screen in screens:
        found = [figures.get(f"{screen}{part}/detection/{attack}") for attack in attacks]
        wrong = [figures.get(f"{screen}{part}/false/{domain}") for domain in (*domains, "all")]
        rows.append([
            screen,
            *(f"{f['mean']:.0%} of {f['n']} (> {f['lower']:.0%})" if f else "-" for f in found),
            *(f"{f['mean']:.0%} of {f['n']} (< {f['upper']:.0%})" if f else "-" for f in wrong),
        ])  # fmt: skip
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _count(name: str, said: Sequence[tuple[_Row, bool | None]]) -> Json:
    """Figures of alarms by attack and by honest domain; adapters of which a screen says nothing do not count."""
    groups: dict[str, list[tuple[str, bool]]] = {}
    for row, alarm in said:
        if alarm is None:
            continue
        part = "detection" if row.kind == "attack" else "false"
        for group in (f"{name}/{part}/{row.which}", f"{name}/{part}/all"):
            groups.setdefault(group, []).append((row.seed, alarm))
    found = {}
    for group, alarms in groups.items():
        hits, count = sum(alarm for _, alarm in alarms), len(alarms)
        figure = _describe([float(alarm) for _, alarm in alarms], alarms, compute_rate_bound(hits, count))
        found[group] = figure | {"lower": 1 - compute_rate_bound(count - hits, count)}
    return found


def _describe(values: Sequence[float], by_seed: Sequence[tuple[str, Any]], upper: float) -> Json:
    seeds = {seed: [float(value) for own, value in by_seed if own == seed] for seed, _ in by_seed}
    means = {seed: compute_mean(own) for seed, own in seeds.items()}
    return {"mean": compute_mean(values), "upper": upper, "n": len(values), "by_seed": means}
