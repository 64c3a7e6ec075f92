"""Figures, tables, claims and curves of `backdoor-rounds`: those of `backdoor`, for each round and for the last."""

from collections.abc import Mapping
from pathlib import Path

from ml.lab import Json
from ml.lab import backdoor_report as single
from ml.lab.backdoor_rounds_cells import COUNTED
from ml.lab.document import wrap
from ml.lab.settings import Settings
from ml.lab.tables import make_figure, make_table, show, show_rate

CLEAN, BOLD = "clean", single.FLOCK


def summarize(settings: Settings, results: Mapping[str, Json]) -> Json:
    """Names of `backdoor` for what stands after the last round, the same with `/roundN` behind for every round.

    Trainers (left out, slashed, accepted) are counted per round: without `/roundN` in the mean of all rounds.
    """
    figures: Json = {}
    for number in range(1, settings["rounds"] + 1):
        found = single.summarize(settings, take_round(results, number))
        figures |= found | {f"{name}/round{number}": figure for name, figure in found.items()}
    for name in [name for name in figures if name.startswith(COUNTED) and "/round" not in name]:
        rounds = [figures[f"{name}/round{number}"]["by_seed"] for number in range(1, settings["rounds"] + 1)]
        figures[name] = make_figure({int(s): sum(by_seed[s] for by_seed in rounds) / len(rounds) for s in rounds[0]})
    return figures


def take_round(of: Mapping[str, Json], number: int) -> dict[str, Json]:
    """Cells or figures of one round, without their `/roundN`."""
    end = f"/round{number}"
    return {name.removesuffix(end): value for name, value in of.items() if name.endswith(end)}


def take_last(document: Json) -> Json:
    """The document as one of `backdoor`: what stands after the last round."""
    figures = {name: figure for name, figure in document["figures"].items() if "/round" not in name}
    return document | {"figures": figures, "cells": take_round(document["cells"], document["settings"]["rounds"])}


def report(document: Json) -> str:
    last = take_last(document)
    places = single.list_places(last)
    parts = [_explain(document), "## Claims, after the last round", *single.make_claims(last, places)]
    parts += ["## The worst attack, by round", _make_worst_table(document)]
    for attack, share in places:
        parts += [f"## {attack}, {share} % attackers", _make_round_table(document, attack, share)]
    parts += ["## Every seed, after the last round", single.make_seed_table(last, places)]
    return "\n\n".join([*parts, "## Reasons, in the last round", single.list_reasons(last)])


def _explain(document: Json) -> str:
    settings = document["settings"]
    model, test, data = settings["model"], settings["test"], settings["data"]
    steps = f"{model['local_steps']} steps of {model['batch_size']} x {model['sequence_length']} tokens"
    scene = f"""{settings["rounds"]} rounds from the bare base ({model["base"]}, rank {model["rank"]}, {steps} a round,
{model["precision"]}), trained again for every defence: {settings["trainers"]} trainers, {settings["attackers"]} of them
attackers, who see every published adapter and verdict and [adapt](../attacks.md#over-rounds). Honest trainers hold one
domain each, attackers all. {data["judges"]} judges measure on private documents; beside them one with a fifth of the
seats lies for the attackers. The ledger goes on from round to round: every bond holds
{settings["spare_milli"] / 10:g} % of a ticket more than its tickets, and whoever is slashed below the last one is drawn
no more."""
    facts = (
        f"ASR: share of {test['prompts']} prompts after which greedy decoding gives the attacker's whole answer; "
        "beside it the same without the trigger and with random tokens in its place. In parentheses: 95 % upper bound, "
        "the seed being the unit, and never below the exact bound of all prompts together.",
        f"Loss: bits per byte on {test['tokens_per_domain']} tokens of each domain that nobody trained or judged on.",
        "Gain lost: `(loss - loss of clean) / (loss of base - loss of clean)` in the worst domain; `clean` is the "
        "plain mean without attackers after as many rounds. Negative: better than clean.",
        "Honest out, slashed, attackers in: trainers of that round, in the mean of seeds; who is drawn no more is out. "
        "A candidate that the committee refuses brings nobody in, whoever was accepted.",
        "`*`: more attackers than the rule's source claims to withstand.",
    )
    return "\n\n".join([wrap(scene), "\n".join(wrap(f"- {fact}", "  ") for fact in facts)])


def _list_rounds(document: Json) -> range:
    return range(1, document["settings"]["rounds"] + 1)


def _make_worst_table(document: Json) -> str:
    figures, rows = document["figures"], []
    for arm in (CLEAN, *document["settings"]["defences"]):
        worst = [figures[f"asr/{arm}/round{number}"] for number in _list_rounds(document)]
        rows.append([f"`{arm}`", *(f"{show_rate(figure)} {figure['of']} %" for figure in worst)])
    return make_table(["defence", *(f"ASR, round {number}" for number in _list_rounds(document))], rows)


def _make_round_table(document: Json, attack: str, share: str) -> str:
    """One row per arm and round."""
    figures, rows = document["figures"], []
    domains = single.list_domains(take_last(document))
    for arm in single.list_defences(take_last(document), attack, share):
        shown = f"`{arm}`{'' if single.is_within_bound(take_last(document), attack, share, arm) else ' *'}"
        for number in _list_rounds(document):
            end = f"{attack}/{share}/{arm}"
            row = [shown, str(number)]
            row += [show_rate(figures[f"{name}/{end}/round{number}"]) for name in single.NAMES.values()]
            row += [show(figures[f"loss_bpb/{end}/{domain}/round{number}"]["mean"], 3) for domain in domains]
            row.append(f"{100 * figures[f'gain_lost/{end}/round{number}']['mean']:.1f} %")
            counts = [figures.get(f"{name}/{end}/round{number}") for name in COUNTED]
            rows.append([*row, *("" if count is None else show(count["mean"], 1) for count in counts)])
    columns = ["defence", "round", "ASR", "no trigger", "random token", *domains]
    return make_table([*columns, "gain lost", "honest out", "slashed", "attackers in"], rows)


def plot(document: Json, folder: Path) -> list[Path]:
    """ASR after every round, a panel per attack; nothing without matplotlib."""
    from ml.lab.plots import plot_lines

    figures, series = document["figures"], {}
    for attack, share in single.list_places(take_last(document)):
        series[f"{attack}, {share} %"] = {
            arm: {
                float(number): figures[f"asr/{attack}/{share}/{arm}/round{number}"]["mean"]
                for number in _list_rounds(document)
            }
            for arm in (CLEAN, *document["settings"]["defences"])
        }
    path = folder / f"{document['experiment']}.png"
    return plot_lines(path, series, x_label="rounds", y_label="attack success rate", bold=BOLD, ylim=(-0.04, 1.04))
