"""Tables and claims of `domains`, from the finished document alone."""

from collections.abc import Sequence
from pathlib import Path

from ml.lab import Json
from ml.lab.document import wrap
from ml.lab.domains_figures import BASE, DRAWS, LOCAL, LONG, OWN, POOLED
from ml.lab.tables import make_figure, make_table

NO_WORSE = 0.005
"""No worse: the upper 95 % bound of the relative loss lies below this."""
JUDGEMENTS = ("better", "no worse", "worse", "undecided")


def report(document: Json) -> str:
    parts = [_explain(document), "## Loss", _make_loss_table(document)]
    if document["settings"]["split"]["kind"] != "domain":
        parts += ["## Who holds what", "Documents.", _make_holdings_table(document)]
    for arm in [arm["name"] for arm in document["settings"]["global_arms"]]:
        parts += [f"## `{arm}`", _make_claims_table(document, arm)]
        parts += [f"On each trainer's own {_name_own(document)}:", _make_own_table(document, arm)]
        parts += ["On every domain:", _make_domain_table(document, arm)]
    return "\n\n".join(parts)


def _name_own(document: Json) -> str:
    return "domain" if document["settings"]["split"]["kind"] == "domain" else "mixture of domains"


def _explain(document: Json) -> str:
    settings = document["settings"]
    model, split = settings["model"], settings["split"]
    how = (
        "one domain each" if split["kind"] == "domain" else f"Dirichlet({split['alpha_milli'] / 1_000:g}) over domains"
    )
    steps = f"{model['local_steps']} steps of {model['batch_size']} x {model['sequence_length']} tokens"
    held_out = ", ".join(settings["data"].get("held_out", [])) or "none"
    return f"""{settings["trainers"]} trainers ({how}), {settings["rounds"]} rounds of {steps} each
({model["base"]}, rank {model["rank"]}, {model["precision"]}). `local-X` is trainer X alone with as many steps as it
took for the global adapter; `pooled` is one trainer with everybody's documents and as many steps as one of them took;
`-long` has as many steps as all took together. Held out, so that nobody trained on them: {held_out}.

- Loss: bits per byte on at least {_count_targets(document)} tokens a domain, of documents that nobody trained on.
- Intervals: 5 % and 95 % quantiles over {DRAWS} draws of seeds and documents, both with replacement.
- No worse: the upper bound lies below +{100 * NO_WORSE:.1f} %. Better: it lies below 0.
- Two claims are kept apart: better at equal own data (`local-X`), and at equal compute (`local-X-long`).
- Good on every seed: no seed's loss is higher.
{_explain_arms(settings["global_arms"])}"""


def _explain_arms(arms: Sequence[Json]) -> str:
    said = []
    for arm in arms:
        options = ", ".join(f"{name} = {value}" for name, value in arm.items() if name != "name")
        said.append(wrap(f"- `{arm['name']}`: {options}.", "  "))
    return "\n".join(said)


def _count_targets(document: Json) -> int:
    return min(count for cell in document["cells"].values() for count in cell.get("targets", {}).values())


def list_domains(document: Json) -> list[str]:
    """Those that are trained on, then those held out."""
    data = document["settings"]["data"]
    return [*sorted(data["domains"]), *sorted(data.get("held_out", []))]


def list_arms(document: Json) -> list[str]:
    named = {name.split("/")[1] for name in document["figures"] if name.startswith("loss_bpb/")}
    first = [BASE, *(arm["name"] for arm in document["settings"]["global_arms"])]
    return [*first, *sorted(named - set(first))]


def _make_loss_table(document: Json) -> str:
    domains, figures = list_domains(document), document["figures"]
    held_out = document["settings"]["data"].get("held_out", [])
    rows = []
    for arm in list_arms(document):
        cells = []
        for domain in domains:
            figure = figures[f"loss_bpb/{arm}/{domain}"]
            cells.append(f"{figure['mean']:.4f} ± {figure['deviation']:.4f}")
        rows.append([f"`{arm}`", *cells])
    return make_table(["arm", *(f"{name} (held out)" if name in held_out else name for name in domains)], rows)


def _make_holdings_table(document: Json) -> str:
    """Documents of each trainer by domain, seed by seed."""
    domains = sorted(document["settings"]["data"]["domains"])
    rows = []
    for seed in document["seeds"]:
        for trainer, held in document["cells"][f"holdings/seed{seed}"]["holdings"].items():
            rows.append([str(seed), trainer, *(str(held.get(domain, 0)) for domain in domains)])
    return make_table(["seed", "trainer", *domains], rows)


def _list_trainers(document: Json) -> list[str]:
    holdings = document["cells"][f"holdings/seed{document['seeds'][0]}"]["holdings"]
    return list(holdings)


def _make_own_table(document: Json, arm: str) -> str:
    figures, rows = document["figures"], []
    for trainer in _list_trainers(document):
        for other in (LOCAL + trainer, LOCAL + trainer + LONG):
            figure = figures.get(f"relative_loss/{arm}/{other}/{OWN}")
            if figure is None:
                continue
            kept = figures.get(f"gain_kept/{arm}/{trainer}") if not other.endswith(LONG) else None
            seeds = " ".join(f"{100 * value:+.1f}" for value in figure["by_seed"].values())
            said = judge(figure["lower"], figure["upper"])
            rows.append([f"`{other}`", _show(figure), seeds, f"{100 * kept['mean']:.0f} %" if kept else "", said])
    columns = ["against", f"loss of `{arm}` relative to it", "by seed, %", "share of its gain", "so it is"]
    return make_table(columns, rows)


def _make_domain_table(document: Json, arm: str) -> str:
    domains, figures = list_domains(document), document["figures"]
    rows = []
    for other in list_arms(document):
        if other != arm:
            found = [figures[f"relative_loss/{arm}/{other}/{domain}"] for domain in domains]
            rows.append([f"`{other}`", *(f"{_show(one)} {judge(one['lower'], one['upper'])}" for one in found)])
    return make_table([f"`{arm}` against", *domains], rows)


def _show(figure: Json) -> str:
    return f"{100 * figure['mean']:+.2f} % ({100 * figure['lower']:+.2f} to {100 * figure['upper']:+.2f})"


def judge(lower: float, upper: float) -> str:
    if upper < 0:
        return "better"
    if upper < NO_WORSE:
        return "no worse"
    return "worse" if lower > 0 else "undecided"


def _make_claims_table(document: Json, arm: str) -> str:
    """How often the arm keeps up: with the specialists at both budgets, and on domains held out."""
    figures, held_out = document["figures"], document["settings"]["data"].get("held_out", [])
    rows = []
    for what, suffix in (("equal own data", ""), ("equal compute", LONG)):
        others = {f"{LOCAL}{trainer}{suffix}": trainer for trainer in _list_trainers(document)}
        compared = {
            f"specialists' own {_name_own(document)}": [(other, OWN) for other in others],
            "their other domains": [
                (other, domain) for other, trainer in others.items() for domain in _find_foreign(document, trainer)
            ],
            "held-out domains, against each specialist": [(other, domain) for other in others for domain in held_out],
            "every domain, against the pooled trainer": [(POOLED + suffix, name) for name in list_domains(document)],
        }
        for where, pairs in compared.items():
            found = [figures.get(f"relative_loss/{arm}/{other}/{domain}") for other, domain in pairs]
            if found and all(found):
                rows.append([what, where, *_tell(found)])
    base = [figures[f"relative_loss/{arm}/{BASE}/{domain}"] for domain in held_out]
    if base:
        rows.append(["", "held-out domains, against the base", *_tell(base)])
    columns = ["at", "on", "compared", "better", "no worse, but not better", "worse", "undecided", "good on every seed"]
    return make_table(columns, rows)


def _tell(found: Sequence[Json]) -> list[str]:
    """How many, how they are judged, and in how many no seed has a higher loss."""
    said = [judge(figure["lower"], figure["upper"]) for figure in found]
    always = sum(max(figure["by_seed"].values()) <= 0 for figure in found)
    return [str(number) for number in (len(said), *(said.count(word) for word in JUDGEMENTS), always)]


def _find_foreign(document: Json, trainer: str) -> list[str]:
    """Domains of which the trainer holds nothing under any seed."""
    held = [document["cells"][f"holdings/seed{seed}"]["holdings"][trainer] for seed in document["seeds"]]
    return [
        domain
        for domain in sorted(document["settings"]["data"]["domains"])
        if not any(own.get(domain, 0) for own in held)
    ]


def plot(document: Json, folder: Path) -> list[Path]:
    """Per domain how each arm's loss differs from the base's; nothing without matplotlib."""
    from ml.lab.plots import plot_bars

    figures, arms = document["figures"], [arm for arm in list_arms(document) if arm != BASE]
    held_out = document["settings"]["data"].get("held_out", [])
    kinds = {
        "everybody's documents pooled": [arm for arm in arms if arm.startswith(POOLED)],
        "one specialist alone": [arm for arm in arms if arm.startswith(LOCAL)],
        "global adapter": [arm["name"] for arm in document["settings"]["global_arms"]],
    }
    series = {}
    for domain in list_domains(document):
        base = figures[f"loss_bpb/{BASE}/{domain}"]["by_seed"]
        bars = {}
        for arm in arms:
            losses = figures[f"loss_bpb/{arm}/{domain}"]["by_seed"]
            found = make_figure({int(seed): 100 * (loss / base[seed] - 1) for seed, loss in losses.items()})
            bars[arm] = (found["mean"], found["upper"])
        series[f"{domain} (held out)" if domain in held_out else domain] = bars
    return plot_bars(folder / f"{document['experiment']}.png", series, kinds=kinds, label="loss against the base, %")
