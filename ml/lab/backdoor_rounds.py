"""Backdoors, tier 2: several rounds, trained again for every defence, against attackers that see and adapt.

Each arm is a task of its own: its trainers start every round from the global adapter to which the arm came, its
attackers know what became of their last updates (ml/lab/caution.py), its ledger remembers whose bond was slashed. In
the arms with a committee a judge with a fifth of the seats lies for the attackers. Arms share their first round's
updates. `clean` is the plain mean of the honest alone, over as many rounds.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ml.lab import Json
from ml.lab.backdoor import CELLS, plan_honest, plan_server
from ml.lab.backdoor_rounds_report import plot as plot
from ml.lab.backdoor_rounds_report import report as report
from ml.lab.backdoor_rounds_report import summarize as summarize
from ml.lab.cells import Cell, list_all
from ml.lab.defences import COMMITTEE_ARMS, LOSS_ONLY
from ml.lab.settings import Settings

HERE = "ml.lab.backdoor_rounds_cells"
BASE, CLEAN = "base", "clean"


def plan(settings: Settings) -> list[Cell]:
    """One measurement per seed, attack, arm and round."""
    only = settings.values.get("only", list(settings["attacks"]))
    return [
        cell
        for seed in settings.seeds
        for name, attack in sorted(settings["attacks"].items())
        if name in only
        for arm in (BASE, CLEAN, *settings["defences"])
        for cell in Task(settings, seed, name, attack, arm).plan_measurements()
    ]


class Task:
    """One attack on one arm: who trains, judges and decides in each round."""

    def __init__(self, settings: Settings, seed: int, name: str, attack: Mapping[str, Any], arm: str) -> None:
        self.settings, self.seed, self.attack, self.arm = settings, seed, dict(attack), arm
        self.attackers = 0 if arm == CLEAN else settings["attackers"]
        self.honest = settings["trainers"] - settings["attackers"]
        share = 100 * settings["attackers"] // settings["trainers"]
        self.place = f"{name}/{share}/seed{seed}/{arm}"
        self.names = [f"honest-{i}" for i in range(self.honest)] + [f"attacker-{i}" for i in range(self.attackers)]
        self.common: Json = {"model": settings["model"], "data": settings["data"], "seed": seed}
        self.goal = {key: self.attack[key] for key in ("attack", "trigger", "target") if key in self.attack}

    def plan_measurements(self) -> Iterator[Cell]:
        plays: tuple[Cell, ...] = ()
        updates: tuple[Cell, ...] = ()
        for number in range(1, self.settings["rounds"] + 1):
            if self.arm != BASE:
                updates = self._plan_updates(number, plays, updates)
                plays = (self._plan_play(number, plays, updates), *plays)
            settings = self.common | {"test": self.settings["test"], "goal": self.goal}
            yield Cell(f"{self.place}/round{number}", f"{HERE}:measure_round", settings, plays[:1])

    def _plan_updates(self, number: int, plays: tuple[Cell, ...], before: tuple[Cell, ...]) -> tuple[Cell, ...]:
        """The first round's are those of all arms, and of one round alone (`backdoor`) where the settings agree."""
        first = [plan_honest(self.settings, self.seed, index) for index in range(self.honest)]
        honest = first if number == 1 else [self._go_on(cell, number, plays) for cell in first]
        attackers = [self._plan_attacker(index, number, plays, before) for index in range(self.attackers)]
        return (*honest, *attackers)

    def _go_on(self, first: Cell, number: int, needs: tuple[Cell, ...]) -> Cell:
        """The same in a later round."""
        settings = {**first.settings, "round": number}
        return Cell(f"{first.name}/{self.place}/round{number}", first.run, settings, (*first.needs, *needs))

    def _plan_attacker(self, index: int, number: int, plays: tuple[Cell, ...], before: tuple[Cell, ...]) -> Cell:
        settings: Json = self.common | {
            "attack": self.attack,
            "colluder": index,
            "colluders": self.attackers,
            "trainers": self.settings["trainers"],
            "norm_cap_milli": self.settings["norm_cap_milli"],
        }
        server = plan_server(self.settings, self.seed)
        first = Cell(f"attack/{self.place}/{index}", f"{CELLS}:train_attacker", settings, (server,))
        published = tuple(cell for cell in before if cell.run.endswith(":train_honest"))
        return first if number == 1 else self._go_on(first, number, (*plays, *published))

    def _plan_play(self, number: int, plays: tuple[Cell, ...], updates: tuple[Cell, ...]) -> Cell:
        settings: Json = self.common | {
            "arm": self.arm,
            "names": self.names,
            "judge": self._get_judge(),
            "norm_cap_milli": self.settings["norm_cap_milli"],
            "spare_milli": self.settings["spare_milli"],
            "liar": True,
            "round": number,
        }
        server = plan_server(self.settings, self.seed)
        judges: tuple[Cell, ...] = ()
        if self.arm.startswith(COMMITTEE_ARMS):
            count = self.settings["data"]["judges"]
            judges = tuple(self._plan_judge(at, number, plays, updates) for at in range(count))
        return Cell(f"play/{self.place}/{number}", f"{HERE}:play_round", settings, (server, *updates, *judges, *plays))

    def _plan_judge(self, at: int, number: int, plays: tuple[Cell, ...], updates: tuple[Cell, ...]) -> Cell:
        settings: Json = self.common | {
            "names": self.names,
            "judge": self._get_judge(),
            "number": at,
            "norm_cap_milli": self.settings["norm_cap_milli"],
            "round": number,
        }
        needs = (plan_server(self.settings, self.seed), *updates, *plays)
        return Cell(f"judge/{self.place}/{number}/{at}", f"{CELLS}:judge", settings, needs)

    def _get_judge(self) -> Json:
        """Where screens are struck out, nobody needs to run them."""
        judge: Json = self.settings["judge"]
        return judge | {"screen_tokens": 0} if self.arm == LOSS_ONLY else judge


def describe_cost(settings: Settings) -> str:
    """What one seed takes, in the units that take time."""
    cells = list_all(cell for cell in plan(settings) if cell.settings["seed"] == settings.seeds[0])
    count = Counter(cell.run.rpartition(":")[2] for cell in cells)
    model, judge = settings["model"], settings["judge"]
    tokens = model["local_steps"] * model["batch_size"] * model["sequence_length"]
    trained = count["train_honest"] + count["train_attacker"] + count["train_server"]
    return (
        f"{len(cells)} cells a seed: {trained} trainings of {tokens:,} tokens (some attacks train twice), "
        f"{count['judge']} ballots on {settings['trainers']} updates each, {judge['blocks']} blocks of "
        f"{judge['block_tokens']} tokens a domain and at most {judge['screen_tokens']:,} for screens, "
        f"{count['measure_round']} measurements with {settings['test']['prompts']} prompts; {len(settings.seeds)} seeds"
    )
