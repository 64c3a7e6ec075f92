"""The cells of `backdoor`: training, judging, tuning, and one defence's result. Run in processes of the pool."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ml.adapter import Update
from ml.attacks import AttackContext, craft_attack
from ml.constraints import Pull
from ml.lab import Json
from ml.lab.cells import Cell, Work
from ml.lab.committee import run_committee
from ml.lab.defences import COMMITTEE_ARMS, TUNED, combine, count_tolerated
from ml.lab.judging import judge_updates, make_meter, to_json
from ml.lab.learners import (
    Model,
    cut_by_domain,
    deal,
    describe_training,
    keep_update,
    load_update,
    open_model,
    train_on,
)
from ml.lab.learning_task import make_task_spec
from ml.lab.learning_task import to_json as task_to_json
from ml.lab.measuring import find_goal, measure
from ml.norms import norm2
from ml.spec import AdapterSpec, TrainSpec

SERVER_NUMBER, ATTACKER_NUMBER = 900, 500
"""Where the batch seeds of the server and of the attackers begin, beside the honest trainers' from 0."""


def train_honest(work: Work) -> Json:
    settings = work.settings
    model, data = open_model(settings["model"]), deal(settings["data"], settings["seed"])
    number = settings["trainer"]
    pull = Pull(settings["mu"]) if settings["mu"] else None
    result = train_on(model, data.get_specialist(number), settings["seed"], number, constraint=pull)
    keep_update(work, result.update)
    return describe_training(result) | {"norm2": norm2(result.update, model.spec)}


def train_server(work: Work) -> Json:
    """On the last generalist's documents, which are of all domains."""
    settings = work.settings
    model, data = open_model(settings["model"]), deal(settings["data"], settings["seed"])
    held = data.get_generalist(settings["data"]["generalists"] - 1)
    result = train_on(model, held, settings["seed"], SERVER_NUMBER)
    keep_update(work, result.update)
    return describe_training(result) | {"norm2": norm2(result.update, model.spec)}


def train_attacker(work: Work) -> Json:
    settings, attack = work.settings, work.settings["attack"]
    model, data = open_model(settings["model"]), deal(settings["data"], settings["seed"])
    colluder = settings["colluder"]
    blocks = cut_by_domain(model, data.get_generalist(colluder), model.settings["sequence_length"])
    seen = [need for need in work.cell.needs if need.run.endswith(":train_honest")]
    context = AttackContext(
        model.base,
        model.spec,
        make_attack_spec(model, settings["seed"], attack),
        blocks,
        norm_cap=compute_norm_cap(work, settings["norm_cap_milli"]),
        goal=find_goal(model, attack),
        honest_updates={need.name: load_update(work, need, model.spec) for need in seen},
        colluders=settings["colluders"],
        colluder=colluder,
        trainers=settings["trainers"],
    )
    update = craft_attack(attack["attack"], context, **attack.get("options", {}))
    keep_update(work, update)
    return {"norm2": norm2(update, model.spec)}


def make_attack_spec(model: Model, seed: int, attack: Mapping[str, Any]) -> TrainSpec:
    """As the honest trainers', but for `local_steps` of the attack's own: nobody can stop an attacker from training."""
    train_spec = model.make_train_spec(seed, ATTACKER_NUMBER)
    return replace(train_spec, local_steps=attack.get("local_steps", train_spec.local_steps))


def compute_norm_cap(work: Work, norm_cap_milli: int) -> int:
    """The task's cap on |BA|^2: so many thousandths of the length of the creator's own update."""
    own = next(need for need in work.cell.needs if need.run.endswith(":train_server"))
    return int(work.result(own)["norm2"]) * norm_cap_milli**2 // 1_000_000


def judge(work: Work) -> Json:
    """One judge's entries on all updates of the round."""
    settings = work.settings
    model, data = open_model(settings["model"]), deal(settings["data"], settings["seed"])
    updates = load_updates(work, model.spec)
    task = task_to_json(make_task(work, model, len(updates)))
    meter = make_meter(model, data, settings["judge"], task, settings["number"])
    return {"entries": {name: to_json(entry) for name, entry in judge_updates(meter, model, task, updates).items()}}


def make_task(work: Work, model: Model, trainers: int, seats: int = 9) -> Any:
    settings = work.settings
    cap = compute_norm_cap(work, settings["norm_cap_milli"])
    domains = sorted(deal(settings["data"], settings["seed"]).shards.test)
    return make_task_spec(model, domains, settings["judge"], trainers=trainers, seats=seats, norm_cap=cap)


def load_updates(work: Work, spec: AdapterSpec) -> dict[str, Update]:
    """The round's updates by name."""
    return {name: load_update(work, need, spec) for name, need in find_updates(work).items()}


def find_updates(work: Work) -> dict[str, Cell]:
    trained = [need for need in work.cell.needs if need.run.endswith((":train_honest", ":train_attacker"))]
    names: list[str] = work.settings["names"]
    return dict(zip(names, trained, strict=True))


def tune(work: Work) -> Json:
    """The server rate with the least loss, summed over the domains, of a round without attackers."""
    settings = work.settings
    model = open_model(settings["model"])
    updates = {need.name: load_update(work, need, model.spec) for need in work.cell.needs}
    tried = {}
    for rate in settings["rates"]:
        made = combine(settings["arm"], updates, model.spec, trusted={}, rate=rate, honest=())
        tried[str(rate)] = sum(measure(settings, made, work.folder)["loss"].values())
    best = min(settings["rates"], key=lambda rate: (tried[str(rate)], rate))
    return {"rate": best, "loss_by_rate": tried}


def run_arm(work: Work) -> Json:
    """What the round comes to under one defence."""
    settings, arm = work.settings, work.settings["arm"]
    model = open_model(settings["model"])
    updates = load_updates(work, model.spec)
    honest = [name for name in updates if name.startswith("honest")]
    found: Json = {"arm": arm, "trainers": len(updates), "attackers": len(updates) - len(honest)}
    if arm == "base":
        made = None
    elif arm.startswith(COMMITTEE_ARMS):
        decided = run_committee(work, model, make_task, updates)
        made = decided.factors
        found |= decided.describe()
    else:
        rate = next(
            (work.result(need)["rate"] for need in work.cell.needs if arm in TUNED and "tuning" in need.name), None
        )
        server = next(need for need in work.cell.needs if need.run.endswith(":train_server"))
        trusted = load_update(work, server, model.spec)
        made = combine(arm, updates, model.spec, trusted=trusted, rate=rate, honest=honest)
        found["server_rate"] = rate
    bound = count_tolerated(arm, len(updates))
    found["within_bound"] = bound is None or found["attackers"] <= bound
    return found | measure(settings, made, work.folder)
