"""Backdoors, tier 1: one round's updates, trained once per attack, replayed under every defence.

n trainers send updates from one common global adapter (here the bare base), f of them with a backdoor; every defence
takes the same tensors. What comes out is measured on documents of nobody: attack success with the trigger, without it
and with random tokens in its place, and the clean loss of each domain. `clean` is the mean of the honest alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ml.lab import Json
from ml.lab.backdoor_report import plot as plot
from ml.lab.backdoor_report import report as report
from ml.lab.backdoor_report import summarize as summarize
from ml.lab.cells import Cell
from ml.lab.defences import COMMITTEE_ARMS, TUNED, list_arms
from ml.lab.settings import Settings

CELLS = "ml.lab.backdoor_cells"


def plan(settings: Settings) -> list[Cell]:
    """One cell per seed, attack, share and defence."""
    return [cell for seed in settings.seeds for cell in _plan_seed(settings, seed)]


def _plan_seed(settings: Settings, seed: int) -> Iterator[Cell]:
    only = settings.values.get("only", list(settings["attacks"]))
    for name, attack in sorted(settings["attacks"].items()):
        for share in settings["shares"] if name in only else ():
            scene = Scene(settings, seed, name, attack, share["trainers"], share["attackers"])
            arms = share.get("defences") or list_arms(settings["defences"], settings["screens"])
            for arm in arms:
                yield scene.plan_arm(arm)


class Scene:
    """One attack on one round: who trains what, and who judges."""

    def __init__(
        self, settings: Settings, seed: int, name: str, attack: Mapping[str, Any], trainers: int, attackers: int
    ) -> None:
        self.settings, self.seed, self.trainers, self.attackers = settings, seed, trainers, attackers
        self.attack = dict(attack)
        self.goal: Json = {}
        """What is measured: nothing for an attack that plants no backdoor."""
        if self.attack.get("plants_backdoor", True):
            self.goal = {key: self.attack[key] for key in ("attack", "trigger", "target") if key in self.attack}
        self.place = f"{name}/{100 * attackers // trainers}/seed{seed}"
        self.common: Json = {"model": settings["model"], "data": settings["data"], "seed": seed}
        self.server = plan_server(settings, seed)
        self.honest = [plan_honest(settings, seed, index) for index in range(trainers - attackers)]
        self.malicious = [self._plan_attacker(index) for index in range(attackers)]
        self.names = [f"honest-{i}" for i in range(len(self.honest))] + [f"attacker-{i}" for i in range(attackers)]

    def _plan_attacker(self, index: int) -> Cell:
        settings: Json = self.common | {
            "attack": self.attack,
            "colluder": index,
            "colluders": self.attackers,
            "trainers": self.trainers,
            "norm_cap_milli": self.settings["norm_cap_milli"],
        }
        sees = self.attack.get("sees_round", False)
        needs = (self.server, *(self.honest if sees else ()))
        return Cell(f"attack/{self.place}/{index}", f"{CELLS}:train_attacker", settings, needs)

    def plan_arm(self, arm: str) -> Cell:
        """A defence's result."""
        settings: Json = self.common | {
            "arm": arm,
            "names": self.names,
            "test": self.settings["test"],
            "goal": self.goal,
            "judge": self.settings["judge"],
            "norm_cap_milli": self.settings["norm_cap_milli"],
        }
        updates = (*self.honest, *self.malicious)
        if arm == "fedprox":
            honest = [
                plan_honest(self.settings, self.seed, i, self.settings["fedprox_mu"]) for i in range(len(self.honest))
            ]
            updates = (*honest, *self.malicious)
        needs: tuple[Cell, ...] = (self.server, *updates)
        if arm in TUNED:
            needs += (plan_tuning(self.settings, arm),)
        if arm.startswith(COMMITTEE_ARMS):
            needs += tuple(self.plan_judge(number) for number in range(self.settings["data"]["judges"]))
        return Cell(f"{self.place}/{arm}", f"{CELLS}:run_arm", settings, needs)

    def plan_judge(self, number: int) -> Cell:
        settings: Json = self.common | {
            "names": self.names,
            "judge": self.settings["judge"],
            "number": number,
            "norm_cap_milli": self.settings["norm_cap_milli"],
        }
        needs = (self.server, *self.honest, *self.malicious)
        return Cell(f"judge/{self.place}/{number}", f"{CELLS}:judge", settings, needs)


def plan_honest(settings: Settings, seed: int, index: int, mu: float = 0.0) -> Cell:
    """An honest specialist's update; all attacks of a seed share it."""
    facts: Json = {"model": settings["model"], "data": settings["data"], "seed": seed, "trainer": index, "mu": mu}
    return Cell(f"honest/seed{seed}/{index}{'/prox' if mu else ''}", f"{CELLS}:train_honest", facts)


def plan_server(settings: Settings, seed: int) -> Cell:
    """What the creator trains by itself: FLTrust's trusted update, and the measure of the task's norm cap."""
    facts: Json = {"model": settings["model"], "data": settings["data"], "seed": seed}
    return Cell(f"server/seed{seed}", f"{CELLS}:train_server", facts)


def plan_tuning(settings: Settings, arm: str) -> Cell:
    """The server rate of an optimizer, chosen without attack on a seed that is never evaluated."""
    seed, tuning = settings["tuning"]["seed"], settings["tuning"]
    assert seed not in settings.seeds
    honest = tuple(plan_honest(settings, seed, index) for index in range(tuning["trainers"]))
    facts: Json = {"model": settings["model"], "data": settings["data"], "seed": seed, "test": settings["test"]}
    facts |= {"arm": arm, "rates": tuning["rates"], "goal": {}}
    return Cell(f"tuning/{arm}", f"{CELLS}:tune", facts, honest)
