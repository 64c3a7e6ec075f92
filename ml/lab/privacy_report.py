"""Figures, tables and claims of `privacy`, from its cells' results alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ml.lab import Json
from ml.lab.membership import (
    FALSE_ALARMS,
    compute_auc,
    compute_exposure,
    compute_hits,
    score_by_figures,
    score_by_loss,
    score_by_shadows,
)
from ml.lab.settings import Settings
from ml.lab.tables import make_figure, make_table, show

BASE, PLAIN = "base", "plain"
VIEWS = {"update": "the published update", "merged": "the global adapter"}
ATTACKS = {"loss": score_by_loss, "shadows": None}
NOTHING_LEARNED = 1.44
"""Bits of exposure of a sequence that nobody trained on: the mean of log2(n / rank) for many n."""


def summarize(settings: Settings, results: Mapping[str, Json]) -> Json:
    """`loss_bpb/<arm>/<domain>`, `gain_kept/<arm>`, `epsilon/<arm>`; of each attacked arm `auc/<arm>/<view>/<attack>`,
    `hits/...` (share found at 1 % false alarms), `exposure/<arm>/<view>/<copies>`, `auc/<arm>/figures/<rounding>`.
    """
    figures = _summarize_loss(settings, {name: found for name, found in results.items() if name.startswith("loss/")})
    for arm in settings["leak"]["arms"]:
        by_seed: dict[str, dict[int, float]] = {}
        for seed in settings.seeds:
            victims = [results[f"leak/{arm}/{victim}/seed{seed}"] for victim in range(settings["leak"]["victims"])]
            for name, value in measure_leak(victims, settings["leak"]["copies"]).items():
                kind, _, rest = name.partition("/")
                by_seed.setdefault(f"{kind}/{arm}/{rest}", {})[seed] = value
        figures |= {name: _add_lower(make_figure(values)) for name, values in by_seed.items()}
    return figures


def _summarize_loss(settings: Settings, results: Mapping[str, Json]) -> Json:
    arms = [BASE, *(arm["name"] for arm in settings["arms"])]
    found = {arm: {seed: results[f"loss/{arm}/seed{seed}"] for seed in settings.seeds} for arm in arms}
    domains = sorted(found[BASE][settings.seeds[0]]["loss"])
    figures: Json = {}
    for arm, by_seed in found.items():
        for domain in domains:
            losses = {seed: result["loss"][domain] for seed, result in by_seed.items()}
            figures[f"loss_bpb/{arm}/{domain}"] = make_figure(losses)
        if arm not in (BASE, PLAIN):
            kept = {
                seed: _gain(found[BASE][seed], result) / _gain(found[BASE][seed], found[PLAIN][seed])
                for seed, result in by_seed.items()
            }
            figures[f"gain_kept/{arm}"] = _add_lower(make_figure(kept))
            figures[f"epsilon/{arm}"] = make_figure({seed: result["epsilon"] for seed, result in by_seed.items()})
    return figures


def _gain(base: Json, result: Json) -> float:
    """Bits per byte, mean over domains."""
    return float(np.mean([base["loss"][domain] - result["loss"][domain] for domain in base["loss"]]))


def _add_lower(figure: Json) -> Json:
    """The one-sided 95 % lower bound beside the upper one."""
    upper = figure["upper"]
    return figure | {"lower": None if upper is None else 2 * figure["mean"] - upper}


def measure_leak(victims: list[Json], copies: list[int]) -> dict[str, float]:
    """How well the attackers do against one seed's victims, all of their documents in one ranking."""
    members = np.array([victim["members"] for victim in victims], bool)
    losses = {view: np.array([victim["losses"][view] for victim in victims]) for view in (BASE, *VIEWS)}
    found: dict[str, float] = {}
    for view in VIEWS:
        by_attack = {
            "loss": score_by_loss(losses[view], losses[BASE]),
            "shadows": score_by_shadows(losses[view], losses[BASE], members),
        }
        for attack, scores in by_attack.items():
            kept = ~np.isnan(scores)
            found[f"auc/{view}/{attack}"] = compute_auc(scores[kept], members[kept])
            found[f"hits/{view}/{attack}"] = compute_hits(scores[kept], members[kept])
        for at, count in enumerate(copies):
            found[f"exposure/{view}/{count}"] = float(np.mean([_expose(victim, view, at) for victim in victims]))
    return found | _measure_figures(victims)


def _expose(victim: Json, view: str, canary: int) -> float:
    """By what the adapter took off each sequence's loss."""
    after, before = (victim["canaries"][name][canary] for name in (view, BASE))
    gained = [new - old for new, old in zip(after, before, strict=True)]
    return compute_exposure(gained[0], gained[1:])


def _measure_figures(victims: list[Json]) -> dict[str, float]:
    """One judge's figures of all victims' updates; half of the documents outside its holdout are the attacker's own."""
    changes = np.array([victim["changes"] for victim in victims])
    held = victims[0]["held"]
    inside = np.arange(changes.shape[1]) < held
    known = ~inside & (np.arange(changes.shape[1]) % 2 == 0)
    asked = ~known
    found = {}
    for name in ("exact", "published"):
        scores = score_by_figures(changes, np.array([victim[name] for victim in victims]), known)
        found[f"auc/figures/{name}"] = compute_auc(scores[asked], inside[asked])
    return found


def report(document: Json) -> str:
    parts = [_explain(document), "## Claims", _claim(document), "## Loss against epsilon", _make_loss_table(document)]
    parts += ["## What published adapters leak", _explain_leak(document), _make_leak_table(document)]
    parts += [
        "### Canaries",
        _make_canary_table(document),
        "## What a judge's figures leak",
        _make_figures_table(document),
    ]
    return "\n\n".join(parts)


def _explain(document: Json) -> str:
    settings = document["settings"]
    model, promise = settings["model"], settings["promise"]
    counts = sorted(
        {n for name, cell in document["cells"].items() if "samples" in cell for n in _list(cell["samples"])}
    )
    steps = f"{model['local_steps']} steps of {model['batch_size']} x {model['sequence_length']} tokens"
    tiny = (
        "\n\n**The model is tiny** (random weights after seconds of training on bytes): the shape of the curve\nsays "
        "something, its figures say nothing of a real model."
        if "tiny" in model["base"]
        else ""
    )
    trainers, delta = settings["data"]["specialists"], promise["delta_ppb"] / 1e9
    return f"""{trainers} specialists, {settings["rounds"]} rounds of {steps} ({model["base"]}, rank {model["rank"]},
{model["precision"]}), between {counts[0]} and {counts[-1]} samples a trainer. Epsilon is of all rounds together, at
delta {delta:g}, by opacus' Renyi accountant; the noise is chosen for it before the first round. The sample is a
document, in `-block` arms each block, which promises less. `plain` trains as the network does without `--dp-epsilon`.
Bounds: Student's t over seeds, one-sided 95 %.{tiny}"""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _claim(document: Json) -> str:
    """What must be so if DP-SGD does what it says and nothing else is broken; each may fail."""
    figures, settings = document["figures"], document["settings"]
    protected = [arm for arm in settings["leak"]["arms"] if arm != PLAIN]
    said = []
    for arm in settings["arms"]:
        if arm.get("epsilon"):
            most = max(figures[f"epsilon/{arm['name']}"]["by_seed"].values())
            said.append((f"`{arm['name']}` spends at most {arm['epsilon']}", most <= arm["epsilon"], f"{most:.3f}"))
    for arm in protected:
        epsilon = next(one["epsilon"] for one in settings["arms"] if one["name"] == arm)
        delta = settings["promise"]["delta_ppb"] / 1e9
        for view in VIEWS:
            figure = figures[f"hits/{arm}/{view}/shadows"]
            bound = min(1.0, float(np.exp(epsilon)) * FALSE_ALARMS + delta)
            what = (
                f"under `{arm}`, {VIEWS[view]} gives away at most e^epsilon x 1 % + delta = {bound:.2f} of the members"
            )
            said.append((what, (figure["lower"] or figure["mean"]) <= bound, show(figure["mean"])))
        figure, plain = figures[f"auc/{arm}/update/shadows"], figures[f"auc/{PLAIN}/update/shadows"]
        what = f"the attack with shadows finds less under `{arm}` than under `{PLAIN}`"
        said.append((what, figure["mean"] < plain["mean"], f"{show(figure['mean'])} against {show(plain['mean'])}"))
    rows = [[what, "holds" if is_so else "**does not hold**", value] for what, is_so, value in said]
    return make_table(["claim", "", "measured"], rows)


def _make_loss_table(document: Json) -> str:
    figures = document["figures"]
    domains = sorted(name.split("/")[2] for name in figures if name.startswith(f"loss_bpb/{BASE}/"))
    rows = []
    for arm in (BASE, *(arm["name"] for arm in document["settings"]["arms"])):
        cells = [_show_spread(figures[f"loss_bpb/{arm}/{domain}"]) for domain in domains]
        kept = figures.get(f"gain_kept/{arm}")
        share = {BASE: "0 %", PLAIN: "100 %"}.get(arm) or _show_percent(kept)
        seeds = "" if kept is None else " ".join(f"{100 * value:.0f}" for value in kept["by_seed"].values())
        rows.append([f"`{arm}`", *cells, share, seeds, _describe_noise(document, arm)])
    columns = ["arm", *(f"{domain}, bits per byte" for domain in domains), "gain kept (bounds)", "by seed, %", "noise"]
    return make_table(columns, rows)


def _describe_noise(document: Json, arm: str) -> str:
    """Noise multipliers of the trainers."""
    cells = [cell for name, cell in document["cells"].items() if name.startswith(f"loss/{arm}/")]
    noises = [noise for cell in cells for noise in cell.get("noise_multiplier", [])]
    return f"{min(noises):.2f} to {max(noises):.2f}" if noises else ""


def _show_spread(figure: Json) -> str:
    return f"{figure['mean']:.3f} ± {figure['deviation']:.3f}"


def _show_percent(figure: Json) -> str:
    bounds = "" if figure["lower"] is None else f" ({100 * figure['lower']:.0f} to {100 * figure['upper']:.0f})"
    return f"{100 * figure['mean']:.0f} %{bounds}"


def _show_bounds(figure: Json) -> str:
    bounds = "" if figure["lower"] is None else f" ({show(figure['lower'])} to {show(figure['upper'])})"
    return show(figure["mean"]) + bounds


def _explain_leak(document: Json) -> str:
    leak = document["settings"]["leak"]
    return f"""Each seed has {leak["victims"]} victims, each trained for one round on a random half of
{leak["documents"]} documents ({leak["blocks"]} blocks of each). The attacker has the documents and must say which half
it was: by what the adapter takes off a document's loss (`loss`, arXiv:1709.01604), or by that less what it does where
the document was not trained on, from the other victims as shadows (`shadows`: offline LiRA, arXiv:2112.03570, one
deviation for all). AUC .5 is chance; found at 1 %: members above a threshold that 1 % of the others exceed, .01 is
chance. More shadows, several rounds and the whole history of updates would find more: these are lower bounds of what
leaks."""


def _make_leak_table(document: Json) -> str:
    figures, rows = document["figures"], []
    for arm in document["settings"]["leak"]["arms"]:
        for view, words in VIEWS.items():
            for attack in ATTACKS:
                auc, hits = (figures[f"{kind}/{arm}/{view}/{attack}"] for kind in ("auc", "hits"))
                seeds = " ".join(show(value) for value in auc["by_seed"].values())
                rows.append([f"`{arm}`", words, attack, _show_bounds(auc), seeds, _show_bounds(hits)])
    return make_table(["arm", "seen", "attack", "AUC (bounds)", "by seed", "found at 1 % (bounds)"], rows)


def _make_canary_table(document: Json) -> str:
    leak = document["settings"]["leak"]
    rows = [
        [
            f"`{arm}`",
            VIEWS[view],
            *(_show_bounds(document["figures"][f"exposure/{arm}/{view}/{count}"]) for count in leak["copies"]),
        ]
        for arm in leak["arms"]
        for view in VIEWS
    ]
    most = np.log2(1 + leak["candidates"])
    said = f"""Random sequences among the victim's text, each copy a document of its own. Exposure in bits
(arXiv:1802.08232) among {leak["candidates"]} sequences drawn alike: about {NOTHING_LEARNED} where nothing was learned,
{most:.0f} where it is the first of all."""
    columns = ["arm", "seen", *(f"{n} {'copy' if n == 1 else 'copies'}" for n in leak["copies"])]
    return "\n\n".join([said, make_table(columns, rows)])


def _make_figures_table(document: Json) -> str:
    figures = document["figures"]
    rows = [
        [f"`{arm}`", *(_show_bounds(figures[f"auc/{arm}/figures/{name}"]) for name in ("exact", "published"))]
        for arm in document["settings"]["leak"]["arms"]
    ]
    said = f"""A judge measures all {document["settings"]["leak"]["victims"]} updates on its holdout; the attacker
measures each document in question under each update and asks which move with the judge's figures, beyond the domain's
mean on text of its own. DP-SGD in trainers protects no holdout; what stands between the two columns is the rounding of
[decision 13](../decisions/0013-rounded-figures.md)."""
    return "\n\n".join([said, make_table(["arm", "AUC, exact figures", "AUC, as published"], rows)])


def plot(document: Json, folder: Path) -> list[Path]:
    from ml.lab.plots import plot_lines

    figures, settings = document["figures"], document["settings"]
    arms = [arm for arm in settings["arms"] if arm.get("epsilon") and arm.get("unit", "document") == "document"]
    points = {float(arm["epsilon"]): 100 * figures[f"gain_kept/{arm['name']}"]["mean"] for arm in arms}
    lines = {"mean over seeds": dict(sorted(points.items()))}
    for seed in document["seeds"]:
        of_seed = {
            float(arm["epsilon"]): 100 * figures[f"gain_kept/{arm['name']}"]["by_seed"][str(seed)] for arm in arms
        }
        lines[f"seed {seed}"] = dict(sorted(of_seed.items()))
    return plot_lines(
        folder / f"{document['experiment']}.png",
        {"gain that privacy leaves": lines},
        x_label="epsilon of all rounds",
        y_label="% of the gain without privacy",
        bold="mean over seeds",
    )
