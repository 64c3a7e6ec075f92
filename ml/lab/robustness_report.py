"""Figures, tables and claims of `robustness`, from its cells' results alone."""

from collections.abc import Mapping
from pathlib import Path

from ml.lab import Json
from ml.lab.backdoor_report import BASE, CLEAN, count_committee, group_by_place, summarize_loss
from ml.lab.settings import Settings
from ml.lab.tables import make_table

FLOCK = "flock"
MOST_LOST, UP_TO_PERCENT = 0.10, 40
"""What the project promises of `flock`."""
CUT = 2.0
"""The plot's; the tables show all."""


def summarize(settings: Settings, results: Mapping[str, Json]) -> Json:
    """`gain_lost/<attack>/<share>/<defence>`; `gain_lost/<defence>/<share>` is the worst over attacks.

    The gain is that of the plain mean of all trainers without any attack, at 0 %.
    """
    groups = group_by_place(results)
    figures: Json = {}
    for (attack, share, arm), by_seed in groups.items():
        place = f"{attack}/{share}/{arm}"
        figures |= summarize_loss(place, by_seed, groups[attack, "0", BASE], groups[attack, "0", CLEAN])
        figures |= count_committee(place, by_seed)
    for attack, share, arm in sorted(groups):
        worst, found = f"gain_lost/{arm}/{share}", figures[f"gain_lost/{attack}/{share}/{arm}"]
        if worst not in figures or found["mean"] > figures[worst]["mean"]:
            figures[worst] = found | {"of": attack}
    return figures


def report(document: Json) -> str:
    parts = [_explain(document), "## Claim", _claim(document), "## Worst over attacks", _make_worst_table(document)]
    for attack in sorted({name.split("/")[0] for name in document["cells"]}):
        parts += [f"## {attack}", _make_table(document, attack)]
    parts += ["## Honest trainers", _count_honest(document)]
    return "\n\n".join(parts)


def _list_shares(document: Json) -> list[str]:
    trainers = document["settings"]["trainers"]
    return [str(100 * attackers // trainers) for attackers in document["settings"]["attackers"]]


def _explain(document: Json) -> str:
    settings = document["settings"]
    model = settings["model"]
    steps = f"{model['local_steps']} steps of {model['batch_size']} x {model['sequence_length']} tokens"
    return f"""One round of {settings["trainers"]} trainers on {model["base"]} ({steps}, rank {model["rank"]}).
Attackers that craft updates see the honest ones of the round, the strongest model of the literature. Cells: what is
lost of the gain of the plain mean without attack, worst domain, mean over seeds; 0 % is no loss, 100 % the base, more
is worse than not training."""


def _make_worst_table(document: Json) -> str:
    figures, shares = document["figures"], _list_shares(document)
    rows = []
    for arm in document["settings"]["defences"]:
        worst = [figures[f"gain_lost/{arm}/{share}"] for share in shares]
        rows.append([f"`{arm}`", *(f"{_show(figure)} ({figure['of']})" for figure in worst)])
    return make_table(["defence", *(f"{share} %" for share in shares)], rows)


def _make_table(document: Json, attack: str) -> str:
    figures, shares = document["figures"], _list_shares(document)
    rows = [
        [f"`{arm}`", *(_show(figures[f"gain_lost/{attack}/{share}/{arm}"]) for share in shares)]
        for arm in ("oracle", *document["settings"]["defences"])
    ]
    return make_table(["defence", *(f"{share} %" for share in shares)], rows)


def _show(figure: Json) -> str:
    return f"{100 * figure['mean']:.1f} %"


def _claim(document: Json) -> str:
    figures = document["figures"]
    rows = []
    for share in _list_shares(document):
        figure = figures[f"gain_lost/{FLOCK}/{share}"]
        upper = "" if figure["upper"] is None else f"{100 * figure['upper']:.1f} %"
        wanted = int(share) <= UP_TO_PERCENT
        said = ("holds" if figure["mean"] <= MOST_LOST else "**does not hold**") if wanted else ""
        seeds = " ".join(f"{100 * value:.1f}" for value in figure["by_seed"].values())
        rows.append([f"{share} %", _show(figure), upper, seeds, figure["of"], said])
    columns = ["attackers", "lost by flock, worst attack", "95 % upper bound", "by seed, %", "attack", "at most 10 %"]
    return make_table(columns, rows)


def _count_honest(document: Json) -> str:
    """Left out and slashed under `flock`, over all attacks, shares and seeds."""
    left_out = slashed = honest = 0
    for name, result in document["cells"].items():
        if name.endswith(f"/{FLOCK}"):
            left_out += result["honest_left_out"]
            slashed += result["honest_slashed"]
            honest += result["trainers"] - result["attackers"]
    return f"Of {honest} honest updates under `{FLOCK}` {left_out} were left out and {slashed} slashed."


def plot(document: Json, folder: Path) -> list[Path]:
    """Per share of attackers the worst over attacks, a line per defence; nothing without matplotlib."""
    from ml.lab.plots import plot_lines

    figures, shares = document["figures"], _list_shares(document)
    lines = {
        arm: {float(share): min(CUT, figures[f"gain_lost/{arm}/{share}"]["mean"]) for share in shares}
        for arm in document["settings"]["defences"]
    }
    path = folder / f"{document['experiment']}.png"
    label = f"gain lost (0: none, 1: all; cut at {CUT:g})"
    return plot_lines(path, {"under the worst attack": lines}, x_label="attackers, %", y_label=label, bold=FLOCK)
