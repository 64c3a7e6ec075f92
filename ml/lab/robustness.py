"""Robustness: update attacks at 0 to 45 %, every defence on the same tensors: what is lost of the gain."""

from ml.lab.backdoor import Scene
from ml.lab.cells import Cell
from ml.lab.defences import CONTROLS
from ml.lab.robustness_report import plot as plot
from ml.lab.robustness_report import report as report
from ml.lab.robustness_report import summarize as summarize
from ml.lab.settings import Settings


def plan(settings: Settings) -> list[Cell]:
    """One cell per seed, attack, share and defence; the attacks share their cells at 0 %."""
    trainers, only = settings["trainers"], settings.values.get("only", list(settings["attacks"]))
    return [
        Scene(settings, seed, name, attack, trainers, attackers).plan_arm(arm)
        for seed in settings.seeds
        for name, attack in sorted(settings["attacks"].items())
        if name in only
        for attackers in settings["attackers"]
        for arm in (*CONTROLS, *settings["defences"])
    ]
