"""Domains: does the global adapter serve every domain as well as the specialist that trained on it alone?

Arms are sets of trainers that share an adapter over rounds: all of them under a rule (`global`, `fedavg`), one of them
(`local-<trainer>`), or one that holds everybody's documents (`pooled`). Alone and pooled run at two budgets: as many
steps as one trainer took (equal own data), and as many as all took together (equal compute, `-long`). All are measured
on domains that nobody trained on, too. The short trajectory of a control is the beginning of its long one, and trained
once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml.baselines import list_baselines
from ml.lab import Json, LabError
from ml.lab.cells import Cell, list_all
from ml.lab.domains_figures import BASE, LOCAL, LONG, POOLED
from ml.lab.domains_figures import summarize as summarize
from ml.lab.domains_report import plot as plot
from ml.lab.domains_report import report as report
from ml.lab.learners import SEEDS_PER_SEED
from ml.lab.settings import Settings, merge

CELLS, MODES = "ml.lab.domains_cells", "ml.lab.domains_modes"
NUMBERS_PER_ROUND = 16
"""Batch seeds of one round: more than there are trainers."""
EVERYBODY = -1
"""The number of the trainer who holds everybody's documents."""
UNCHANGED_MILLI = 1_000
ARM_OPTIONS = ("name", "rule", "server", "weights_ppm", "mu", "mode", "rounds", "schedule_milli", "model")
SERVERS = ("fedadam", "fedavg", "fedyogi")
"""Baselines that need nothing but the updates."""


@dataclass(frozen=True)
class Arm:
    """Trainers that share an adapter over rounds, and how."""

    name: str
    members: tuple[int, ...]
    rounds: int
    model: Json
    combine: Json
    """How updates become the next adapter, as `domains_cells.combine` reads it."""
    mu: float = 0.0
    """FedProx's pull in the trainer."""
    mode: str = ""
    """A LoRA mode of `ml.modes`, in floats; empty: the network's own, in integers."""
    schedule_milli: tuple[int, ...] = (UNCHANGED_MILLI,)
    """Parts of the learning rate, spread evenly over the rounds."""

    def get_rate_milli(self, number: int) -> int:
        return self.schedule_milli[(number - 1) * len(self.schedule_milli) // self.rounds]

    @property
    def cells(self) -> str:
        return MODES if self.mode else CELLS


def plan(settings: Settings) -> list[Cell]:
    """Per seed one measurement of each arm, and who holds what. Raises LabError for options that do not fit."""
    check(settings)
    return [cell for seed in settings.seeds for cell in _plan_seed(settings, seed)]


def _plan_seed(settings: Settings, seed: int) -> Iterator[Cell]:
    facts = _get_data(settings, seed) | {"names": name_trainers(settings)}
    yield Cell(f"holdings/seed{seed}", f"{CELLS}:count_documents", facts)
    for arm in list_arms(settings):
        needs = (_plan_round(settings, seed, arm, arm.rounds),) if arm.rounds else ()
        measured = _get_data(settings, seed) | {"model": arm.model, "test": settings["test"], "data": settings["data"]}
        yield Cell(f"{arm.name}/seed{seed}", f"{arm.cells}:measure_arm", measured, needs)


def list_arms(settings: Settings) -> list[Arm]:
    """The base, the global arms, and the controls: each trainer alone and all pooled, short and long."""
    rounds, everyone = settings["rounds"], tuple(range(settings["trainers"]))
    arms = [Arm(BASE, (), 0, settings["model"], {})]
    arms += [_make_global_arm(settings, options, everyone) for options in settings["global_arms"]]
    controls = [(LOCAL + name, (at,), "local") for at, name in enumerate(name_trainers(settings))]
    for name, members, kind in [*controls, (POOLED, (EVERYBODY,), "pooled")]:
        budgets = {"": rounds, LONG: rounds * len(everyone)}
        for suffix, length in budgets.items():
            if not suffix or kind in settings["long_controls"]:
                options = {"name": name + suffix, "rule": "mean", "rounds": length}
                options |= {"mode": settings.values.get("control_mode", "")}
                arms.append(_make_arm(settings, options, members))
    return arms


def _make_global_arm(settings: Settings, options: Mapping[str, Any], everyone: tuple[int, ...]) -> Arm:
    """`weights_ppm` by trainer becomes a list in the order of the members."""
    changes = {}
    if "weights_ppm" in options:
        changes["weights_ppm"] = [options["weights_ppm"][name] for name in name_trainers(settings)]
    return _make_arm(settings, {**options, **changes}, everyone)


def _make_arm(settings: Settings, options: Mapping[str, Any], members: tuple[int, ...]) -> Arm:
    return Arm(
        name=options["name"],
        members=members,
        rounds=options.get("rounds", settings["rounds"]),
        model=merge(settings["model"], options.get("model", {})),
        combine={name: options[name] for name in ("rule", "server", "weights_ppm") if name in options},
        mu=options.get("mu", 0.0),
        mode=options.get("mode", ""),
        schedule_milli=tuple(options.get("schedule_milli", settings.values.get("schedule_milli", [UNCHANGED_MILLI]))),
    )


def name_trainers(settings: Settings) -> list[str]:
    """Under the split by domain specialist i holds domain i; under the Dirichlet split nobody is a specialist."""
    domains, count = settings["data"]["domains"], settings["trainers"]
    if settings["split"]["kind"] == "domain":
        return [f"{domains[i % len(domains)]}{i // len(domains) or ''}" for i in range(count)]
    return [f"trainer{i}" for i in range(count)]


def _get_data(settings: Settings, seed: int) -> Json:
    """What training depends on beside the model. A held-out domain changes nothing of it."""
    data = {name: value for name, value in settings["data"].items() if name != "held_out"}
    return {"data": data, "split": settings["split"], "seed": seed}


def _plan_round(settings: Settings, seed: int, arm: Arm, number: int) -> Cell:
    """The global adapter after a round, from the one before and its members' updates."""
    before = (_plan_round(settings, seed, arm, number - 1),) if number > 1 else ()
    trained = tuple(_plan_training(settings, seed, arm, member, number, before) for member in arm.members)
    facts = _get_data(settings, seed) | {"model": arm.model} | arm.combine
    if arm.mode:
        facts |= {"mode": arm.mode, "round": number}
    return Cell(f"round/seed{seed}/{arm.name}/{number}", f"{arm.cells}:combine", facts, (*before, *trained))


def _plan_training(settings: Settings, seed: int, arm: Arm, member: int, number: int, before: tuple[Cell, ...]) -> Cell:
    batches = number * NUMBERS_PER_ROUND + member + 1
    facts = _get_data(settings, seed) | {"model": arm.model, "trainer": member, "round": number, "number": batches}
    facts |= {"rate_milli": arm.get_rate_milli(number), "mu": arm.mu} | ({"mode": arm.mode} if arm.mode else {})
    return Cell(f"train/seed{seed}/{arm.name}/{member}/{number}", f"{arm.cells}:train", facts, before)


# What a file may say


def check(settings: Settings) -> None:
    """Raises LabError for a file whose options do not fit together, before anything runs."""
    data, trainers = settings["data"], settings["trainers"]
    if data["specialists"] != trainers or data["generalists"]:
        raise LabError(f"data.specialists must be the {trainers} trainers, and data.generalists 0")
    if settings["split"]["kind"] not in ("domain", "dirichlet"):
        raise LabError(f"split.kind is {settings['split']['kind']!r}: choose domain or dirichlet")
    unknown = set(settings["long_controls"]) - {"local", "pooled"}
    if unknown:
        raise LabError(f"long_controls names {', '.join(sorted(unknown))}: choose from local, pooled")
    for options in settings["global_arms"]:
        _check_arm(options, name_trainers(settings))
    for arm in list_arms(settings):
        if not 0 < len(arm.schedule_milli) <= max(1, arm.rounds):
            raise LabError(f"schedule_milli of {arm.name} has {len(arm.schedule_milli)} parts for {arm.rounds} rounds")
        if any(not 0 < part <= UNCHANGED_MILLI for part in arm.schedule_milli):
            raise LabError(f"schedule_milli of {arm.name}: each part must be 1 to {UNCHANGED_MILLI}")
        if trainers > NUMBERS_PER_ROUND - 2 or (arm.rounds + 1) * NUMBERS_PER_ROUND >= SEEDS_PER_SEED:
            most = SEEDS_PER_SEED // NUMBERS_PER_ROUND - 2
            raise LabError(f"{arm.name}: at most {NUMBERS_PER_ROUND - 2} trainers and {most} rounds of one arm")


def _check_arm(options: Mapping[str, Any], names: Sequence[str]) -> None:
    name, rule, server = options["name"], options.get("rule"), options.get("server")
    unknown = sorted(set(options) - set(ARM_OPTIONS))
    if unknown:
        raise LabError(f"arm {name} has {', '.join(unknown)}: choose from {', '.join(ARM_OPTIONS)}")
    if (rule is None) == (server is None):
        raise LabError(f"arm {name} needs either a rule or a server")
    if server is not None and server["name"] not in set(SERVERS) & set(list_baselines()):
        raise LabError(f"arm {name} has server {server['name']!r}: choose from {', '.join(SERVERS)}")
    if options.get("mode") and rule != "mean":
        raise LabError(f'arm {name}: a LoRA mode combines in its own way, give it rule = "mean"')
    weights = options.get("weights_ppm")
    if weights is not None and (set(weights) != set(names) or (server is None and rule != "mean")):
        raise LabError(f"arm {name}: weights_ppm must name {', '.join(names)}, for rule mean or a server")


def describe_cost(settings: Settings) -> str:
    """Tokens of one seed, and how long they take on one core at the speeds that the file states."""
    cells = list_all(cell for cell in plan(settings) if cell.settings["seed"] == settings.seeds[0])
    trained, scored = 0, 0
    for cell in cells:
        facts = cell.settings
        if cell.run.endswith(":train"):
            model = facts["model"]
            trained += model["local_steps"] * model["batch_size"] * model["sequence_length"]
        elif cell.run.endswith(":measure_arm"):
            domains = len(facts["data"]["domains"]) + len(facts["data"].get("held_out", ()))
            scored += domains * facts["test"]["tokens_per_domain"]
    speed = settings["speed"]
    seconds = trained / speed["train_tokens_per_s"] + scored / speed["score_tokens_per_s"]
    return (
        f"{len(cells)} cells a seed: {trained:,} tokens to train on and {scored:,} to score, about {seconds / 60:.0f} "
        f"minutes on one core at {speed['train_tokens_per_s']} and {speed['score_tokens_per_s']} tokens/s; "
        f"{len(settings.seeds)} seeds"
    )
