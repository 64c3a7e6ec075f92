"""Figures, tables and claims of `backdoor`, from its cells' results alone."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ml.lab import Json
from ml.lab.defences import CONTROLS, FLOCK, PAPER
from ml.lab.document import wrap
from ml.lab.settings import Settings
from ml.lab.tables import make_figure, make_table, show, show_rate, show_seeds

FEDAVG, CLEAN, BASE, ATTACKERS = "fedavg", "clean", "base", "attackers"
WANTED_FEDAVG, WANTED_RATIO, WANTED_SHARE = 0.8, 0.32, 0.10
"""What the project promises: where FedAvg falls so far, at most so much of its success rate, and at most so much of the
gain lost."""
PPM = 1_000_000
NAMES = {"with_trigger": "asr", "without_trigger": "asr_without_trigger", "random_token": "asr_random_token"}


def summarize(settings: Settings, results: Mapping[str, Json]) -> Json:
    """`asr/<attack>/<share>/<defence>` and its like; `asr/<defence>` is the worst over attacks and shares."""
    groups = group_by_place(results)
    figures: Json = {}
    for (attack, share, arm), by_seed in groups.items():
        place = f"{attack}/{share}/{arm}"
        prompts = min(result["asr"]["prompts"] for result in by_seed.values())
        for rate, name in NAMES.items():
            rates = _take(by_seed, lambda result, rate=rate: result["asr"][rate])
            figures[f"{name}/{place}"] = make_figure(rates, trials=prompts)
        figures |= summarize_loss(place, by_seed, groups[attack, share, BASE], groups[attack, share, CLEAN])
        figures |= count_committee(place, by_seed)
    return figures | _find_worst(figures)


def group_by_place(results: Mapping[str, Json]) -> dict[tuple[str, str, str], dict[int, Json]]:
    """(attack, share, arm) -> results by seed, from cells named attack/share/seedN/arm."""
    groups: dict[tuple[str, str, str], dict[int, Json]] = {}
    for name, result in results.items():
        attack, share, seed, arm = name.split("/")
        groups.setdefault((attack, share, arm), {})[int(seed.removeprefix("seed"))] = result
    return groups


def count_committee(place: str, by_seed: Mapping[int, Json]) -> Json:
    """Honest left out, honest slashed, attackers accepted; nothing for arms without a committee."""
    return {
        f"{counted}/{place}": make_figure(_take(by_seed, lambda result, key=counted: result[key]))
        for counted in ("honest_left_out", "honest_slashed", "attackers_accepted")
        if all(counted in result for result in by_seed.values())
    }


def _take(by_seed: Mapping[int, Json], value: Callable[[Json], float]) -> dict[int, float]:
    return {seed: float(value(result)) for seed, result in by_seed.items()}


def summarize_loss(
    place: str, by_seed: Mapping[int, Json], base: Mapping[int, Json], clean: Mapping[int, Json]
) -> Json:
    """Bits per byte, and what was lost of the gain without attackers, per domain and in the worst one."""
    domains = sorted(next(iter(by_seed.values()))["loss"])
    figures: Json = {}
    shares: dict[str, dict[int, float]] = {domain: {} for domain in domains}
    for seed, result in by_seed.items():
        for domain in domains:
            gain = base[seed]["loss"][domain] - clean[seed]["loss"][domain]
            shares[domain][seed] = (result["loss"][domain] - clean[seed]["loss"][domain]) / gain
    for domain in domains:
        figures[f"loss_bpb/{place}/{domain}"] = make_figure(_take(by_seed, lambda r, d=domain: r["loss"][d]))
        figures[f"gain_lost/{place}/{domain}"] = make_figure(shares[domain])
    worst = {seed: max(shares[domain][seed] for domain in domains) for seed in by_seed}
    return figures | {f"gain_lost/{place}": make_figure(worst)}


def _find_worst(figures: Json) -> Json:
    worst: Json = {}
    for name, figure in figures.items():
        parts = name.split("/")
        if parts[0] == "asr" and len(parts) == 4:
            key = f"asr/{parts[3]}"
            if key not in worst or figure["mean"] > worst[key]["mean"]:
                worst[key] = figure | {"of": "/".join(parts[1:3])}
    return worst


def report(document: Json) -> str:
    places = list_places(document)
    parts = [_explain(document), "## Claims", *make_claims(document, places)]
    for attack, share in places:
        parts += [f"## {attack}, {share} % attackers", make_defence_table(document, attack, share)]
        parts += make_screen_table(document, attack, share)
    parts += ["## Every seed", make_seed_table(document, places), "## Reasons", list_reasons(document)]
    return "\n\n".join(parts)


def list_places(document: Json) -> list[tuple[str, str]]:
    """(attack, share) in order."""
    return sorted(
        {(name.split("/")[1], name.split("/")[2]) for name in document["figures"] if name.startswith("loss_")}
    )


def list_defences(document: Json, attack: str, share: str) -> list[str]:
    start = f"asr/{attack}/{share}/"
    found = {name.removeprefix(start) for name in document["figures"] if name.startswith(start)}
    order = ["base", "clean", "oracle", *document["settings"]["defences"]]
    return sorted(found, key=lambda arm: (order.index(arm) if arm in order else len(order), arm))


def list_domains(document: Json) -> list[str]:
    return sorted({name.split("/")[4] for name in document["figures"] if name.startswith("loss_bpb/")})


def _explain(document: Json) -> str:
    settings = document["settings"]
    model, test, data = settings["model"], settings["test"], settings["data"]
    steps = f"{model['local_steps']} steps of {model['batch_size']} x {model['sequence_length']} tokens"
    return f"""One round from the bare base ({model["base"]}, rank {model["rank"]}, {steps}, {model["precision"]}).
Honest trainers hold one domain each, attackers all. Every attack's updates are trained once and replayed under
every defence. {data["judges"]} judges measure on private documents; `flock_liars` adds a judge with a fifth of the
seats who lies for the attacker.

- ASR: share of {test["prompts"]} prompts after which greedy decoding gives the attacker's whole answer; beside it the
  same without the trigger and with random tokens in its place. In parentheses: 95 % upper bound, the seed being the
  unit, and never below the exact bound of all prompts together.
- Gain lost: `(loss - loss of clean) / (loss of base - loss of clean)` in the worst domain, on
  {test["tokens_per_domain"]} tokens of each; `clean` is the plain mean without attackers. Negative: better than clean.
- Left out, slashed: honest trainers, of those in the round, in the mean of seeds.
- `*`: more attackers than the rule's source claims to withstand."""


def make_defence_table(document: Json, attack: str, share: str) -> str:
    """One row per arm."""
    figures, rows = document["figures"], []
    for arm in list_defences(document, attack, share):
        place = f"{attack}/{share}/{arm}"
        row = [f"`{arm}`{'' if is_within_bound(document, attack, share, arm) else ' *'}"]
        row += [show_rate(figures[f"{name}/{place}"]) for name in NAMES.values()]
        row.append(f"{100 * figures[f'gain_lost/{place}']['mean']:.1f} %")
        for counted in ("honest_left_out", "honest_slashed", "attackers_accepted"):
            figure = figures.get(f"{counted}/{place}")
            row.append("" if figure is None else show(figure["mean"], 1))
        rows.append(row)
    columns = ["defence", "ASR", "no trigger", "random token", "gain lost", "honest out", "slashed", "attackers in"]
    return make_table(columns, rows)


def make_screen_table(document: Json, attack: str, share: str) -> list[str]:
    """What the screens gave attackers and honest, one row each; nothing where no committee screened."""
    start, end = f"{attack}/{share}/", f"/{FLOCK}"
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for name, result in sorted(document["cells"].items()):
        if name.startswith(start) and name.endswith(end):
            for trainer, screens in sorted(result["screens"].items()):
                for screen, said in sorted(screens.items()):
                    kind = "honest" if trainer.startswith("honest") else "attackers"
                    values = [(value, said["threshold_ppm"]) for value in said["values_ppm"]]
                    found.setdefault((screen, kind), []).extend(values)
    if not found:
        return []
    rows = [
        [
            f"`{screen}`",
            kind,
            *(show(of(value for value, _ in values) / PPM) for of in (min, max)),
            show(values[0][1] / PPM),
            f"{sum(value > threshold for value, threshold in values)} of {len(values)}",
        ]
        for (screen, kind), values in sorted(found.items())
    ]
    said = "What each judge's screens said of each adapter, as on the ballots of `flock`:"
    return [said, make_table(["screen", "adapters", "least", "most", "alarm above", "alarms"], rows)]


def is_within_bound(document: Json, attack: str, share: str, arm: str) -> bool:
    """Whether the arm's source claims anything for so many attackers."""
    start, end = f"{attack}/{share}/", f"/{arm}"
    return all(
        result["within_bound"]
        for name, result in document["cells"].items()
        if name.startswith(start) and name.endswith(end)
    )


def make_claims(document: Json, places: list[tuple[str, str]]) -> list[str]:
    """Paragraphs: how strong the attacks are, and what holds under each."""
    figures = document["figures"]
    rows = []
    for attack, share in places:
        if f"asr/{attack}/{share}/{FLOCK}" not in figures:
            continue
        fedavg, flock = (figures[f"asr/{attack}/{share}/{arm}"]["mean"] for arm in (FEDAVG, FLOCK))
        control = figures[f"asr_random_token/{attack}/{share}/{FLOCK}"]["mean"]
        bound = WANTED_RATIO * fedavg if fedavg >= 0.5 else control + 0.05
        lost = figures[f"gain_lost/{attack}/{share}/{FLOCK}"]["mean"]
        slashed = figures[f"honest_slashed/{attack}/{share}/{FLOCK}"]["mean"]
        rows.append(
            [
                f"{attack}, {share} %",
                show(fedavg),
                f"{show(flock)}, wanted at most {show(bound)}: {_say(flock <= bound)}",
                f"{100 * lost:.1f} %, wanted at most {100 * WANTED_SHARE:.0f} %: {_say(lost <= WANTED_SHARE)}",
                f"{show(slashed, 1)}: {_say(slashed == 0)}",
            ]
        )
    strong = sorted({row[0].partition(",")[0] for row in rows if float(row[1]) >= WANTED_FEDAVG})
    names = ", ".join(strong) or "none"
    said = f"FedAvg's ASR is .8 or more under {len(strong)} kinds of attack ({names}); two are wanted."
    columns = ["attack", "ASR of FedAvg", "ASR of flock", "gain lost by flock", "honest slashed"]
    return [said, make_table(columns, rows)]


def _say(holds: bool) -> str:
    return "holds" if holds else "**does not hold**"


def make_seed_table(document: Json, places: list[tuple[str, str]]) -> str:
    """One row per place and arm."""
    figures, rows = document["figures"], []
    for attack, share in places:
        for arm in list_defences(document, attack, share):
            shown = [show_seeds(figures[f"{name}/{attack}/{share}/{arm}"]) for name in ("asr", "gain_lost")]
            rows.append([f"{attack}, {share} %", f"`{arm}`", *shown])
    return make_table(["attack", "defence", "ASR by seed", "gain lost by seed, worst domain"], rows)


def list_reasons(document: Json) -> str:
    """Why `flock` left something out, in the committee's own words; one seed of each attack."""
    lines = ["What the committee of `flock` said of whom it did not accept, on the first seed:", ""]
    first = f"/seed{document['seeds'][0]}/{FLOCK}"
    for name, result in sorted(document["cells"].items()):
        if name.endswith(first):
            place = name.removesuffix(first)
            said = {who: f"{result['outcomes'][who]}, {reason}" for who, reason in result["reasons"].items()}
            lines += [
                wrap(f"- {place}, {who}: {said[who]}", "  ")
                for who in sorted(said)
                if result["outcomes"][who] != "accept"
            ]
            lines.append(wrap(f"- {place}, the round: {result['outcome']}", "  "))
    return "\n".join(lines)


def plot(document: Json, folder: Path) -> list[Path]:
    """A bar of ASR per defence and attack; nothing without matplotlib."""
    from ml.lab.plots import plot_bars

    figures, series = document["figures"], {}
    for attack, share in list_places(document):
        arms = [arm for arm in list_defences(document, attack, share) if arm != BASE]
        rates = {arm: figures[f"asr/{attack}/{share}/{arm}"] for arm in arms}
        series[f"{attack}, {share} %"] = {arm: (rate["mean"], rate["upper"]) for arm, rate in rates.items()}
    kinds = sort_by_kind(dict.fromkeys(arm for bars in series.values() for arm in bars))
    path = folder / f"{document['experiment']}.png"
    return plot_bars(path, series, kinds=kinds, label="attack success rate", most=1.0)


def sort_by_kind(arms: Iterable[str]) -> dict[str, list[str]]:
    """What is measured beside, what others do, and the network's own pipeline."""
    kinds: dict[str, list[str]] = {"control": [], "another defence": [], "this network": []}
    for arm in arms:
        if arm in (*CONTROLS, ATTACKERS):
            kinds["control"].append(arm)
        elif arm.startswith(FLOCK) and arm != PAPER:
            kinds["this network"].append(arm)
        else:
            kinds["another defence"].append(arm)
    return kinds
