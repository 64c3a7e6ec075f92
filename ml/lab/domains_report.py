"""Figures, tables and claims of `domains`: documents are drawn again for intervals, seeds are shown."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ml.lab import Json
from ml.lab.settings import Settings
from ml.lab.tables import make_figure, make_table

DRAWS = 2_000
NO_WORSE = 0.005
"""No worse: the upper 95 % bound of the relative loss lies below this."""
BASE, LOCAL, LONG, POOLED = "base", "local-", "-long", "pooled"


def summarize(settings: Settings, results: Mapping[str, Json]) -> Json:
    """`loss_bpb/<arm>/<domain>`, and `relative_loss/<arm>/<other arm>/<domain>` with a bound from drawn documents."""
    by_arm: dict[str, dict[int, Json]] = {}
    for name, result in results.items():
        arm, _, seed = name.rpartition("/seed")
        by_arm.setdefault(arm, {})[int(seed)] = result["documents"]
    domains = sorted(next(iter(by_arm["base"].values())))
    figures: Json = {}
    for arm, by_seed in by_arm.items():
        for domain in domains:
            losses = {seed: compute_loss(documents[domain]) for seed, documents in by_seed.items()}
            figures[f"loss_bpb/{arm}/{domain}"] = make_figure(losses)
    for arm in (arm["name"] for arm in settings["global_arms"]):
        for other in by_arm:
            if other != arm:
                for domain in domains:
                    figures[f"relative_loss/{arm}/{other}/{domain}"] = _compare(by_arm[arm], by_arm[other], domain)
    return figures


def compute_loss(documents: list[list[float]]) -> float:
    """Bits per byte."""
    nats, count = np.array(documents).sum(axis=0)
    return float(nats / np.log(2) / count)


def _compare(one: Mapping[int, Json], other: Mapping[int, Json], domain: str) -> Json:
    """Loss of one over that of the other, less 1; bound over seeds and documents, both drawn with replacement."""
    seeds = sorted(one)
    relative = {seed: compute_loss(one[seed][domain]) / compute_loss(other[seed][domain]) - 1 for seed in seeds}
    figure = make_figure(relative)
    random = np.random.Generator(np.random.Philox(len(seeds)))
    pairs = [np.column_stack([np.array(one[s][domain])[:, 0], np.array(other[s][domain])[:, 0]]) for s in seeds]
    draws = []
    for _ in range(DRAWS):
        chosen = random.integers(len(seeds), size=len(seeds))
        ratios = [
            np.divide(*pairs[at][random.integers(len(pairs[at]), size=len(pairs[at]))].sum(axis=0)) for at in chosen
        ]
        draws.append(float(np.mean(ratios)) - 1)
    return figure | {"lower": float(np.quantile(draws, 0.05)), "upper": float(np.quantile(draws, 0.95))}


def report(document: Json) -> str:
    arms = [arm["name"] for arm in document["settings"]["global_arms"]]
    parts = [_explain(document), "## Loss", _make_loss_table(document)]
    for arm in arms:
        parts += [f"## `{arm}` against each specialist", *_make_claims(document, arm)]
    return "\n\n".join(parts)


def _explain(document: Json) -> str:
    settings = document["settings"]
    model, split = settings["model"], settings["split"]
    how = (
        "one domain each" if split["kind"] == "domain" else f"Dirichlet({split['alpha_milli'] / 1_000:g}) over domains"
    )
    steps = f"{model['local_steps']} steps of {model['batch_size']} x {model['sequence_length']} tokens"
    return f"""{settings["trainers"]} trainers ({how}), {settings["rounds"]} rounds of {steps} each
({model["base"]}, rank {model["rank"]}, {model["precision"]}). `local-X` is trainer X alone with as many steps as it
took for the global adapter; `pooled` is one trainer with everybody's documents and as many steps as one of them took;
`-long` has as many steps as all took together.

- Loss: bits per byte on {settings["test"]["tokens_per_domain"]} tokens a domain of documents that nobody trained on.
- Intervals: 5 % and 95 % quantiles over {DRAWS} draws of seeds and documents, both with replacement.
- No worse: the upper bound lies below +{100 * NO_WORSE:.1f} %. Better: it lies below 0.
- Two claims are kept apart: better at equal own data (`local-X`), and at equal compute (`local-X-long`)."""


def list_domains(document: Json) -> list[str]:
    return sorted({name.split("/")[2] for name in document["figures"] if name.startswith("loss_bpb/")})


def list_arms(document: Json) -> list[str]:
    named = {name.split("/")[1] for name in document["figures"] if name.startswith("loss_bpb/")}
    first = ["base", *(arm["name"] for arm in document["settings"]["global_arms"])]
    return [*first, *sorted(named - set(first))]


def _make_loss_table(document: Json) -> str:
    domains, figures = list_domains(document), document["figures"]
    rows = []
    for arm in list_arms(document):
        cells = []
        for domain in domains:
            figure = figures[f"loss_bpb/{arm}/{domain}"]
            cells.append(f"{figure['mean']:.4f} ± {figure['deviation']:.4f}")
        rows.append([f"`{arm}`", *cells])
    return make_table(["arm", *domains], rows)


def _make_claims(document: Json, arm: str) -> list[str]:
    figures, domains = document["figures"], list_domains(document)
    rows = []
    for other in [name for name in list_arms(document) if name.startswith((LOCAL, "pooled"))]:
        own = other.removeprefix(LOCAL).removesuffix(LONG)
        for domain in domains:
            figure = figures[f"relative_loss/{arm}/{other}/{domain}"]
            where = "own" if domain == own else ("other" if other.startswith(LOCAL) else "")
            seeds = " ".join(f"{100 * value:+.1f}" for value in figure["by_seed"].values())
            rows.append(
                [
                    f"`{other}`",
                    domain,
                    where,
                    f"{100 * figure['mean']:+.2f} % ({100 * figure['lower']:+.2f} to {100 * figure['upper']:+.2f})",
                    seeds,
                    judge(figure["lower"], figure["upper"]),
                ]
            )
    columns = ["against", "domain", "its own?", f"loss of `{arm}` relative to it", "by seed, %", "so it is"]
    return [make_table(columns, rows), _count(rows)]


def judge(lower: float, upper: float) -> str:
    if upper < 0:
        return "better"
    if upper < NO_WORSE:
        return "no worse"
    return "worse" if lower > 0 else "undecided"


def _count(rows: list[list[str]]) -> str:
    """The claims in one paragraph."""
    said = []
    for what, is_long in (("equal own data", False), ("equal compute", True)):
        of = [row for row in rows if row[2] and row[0].strip("`").endswith(LONG) == is_long]
        own = [row[5] for row in of if row[2] == "own"]
        others = [row[5] for row in of if row[2] == "other"]
        held = sum(said in ("better", "no worse") for said in own)
        said.append(
            f"At {what}: no worse than the specialist on {held} of {len(own)} own domains (better on "
            f"{own.count('better')}), and better on {others.count('better')} of {len(others)} others."
        )
    return "\n".join(said)


def plot(document: Json, folder: Path) -> list[Path]:
    """Per domain how each arm's loss differs from the base's; nothing without matplotlib."""
    from ml.lab.plots import plot_bars

    figures, arms = document["figures"], [arm for arm in list_arms(document) if arm != BASE]
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
        series[domain] = bars
    return plot_bars(folder / f"{document['experiment']}.png", series, kinds=kinds, label="loss against the base, %")
