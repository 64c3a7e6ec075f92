"""The cells of `backdoor` and `backdoor-rounds`: training, judging, tuning, and one defence's result.

Run in processes of the pool. A cell that needs cells of rounds before (ml/lab/standing.py) starts where these ended:
from their global adapter, with those trainers whom the ledger drew.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ml.adapter import Update
from ml.attacks import AttackContext, craft_attack
from ml.constraints import Pull
from ml.lab import Json
from ml.lab.caution import adapt_options, compute_caution_milli, shorten
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
from ml.lab.standing import ACCEPTED, Standing, get_round, read_standing
from ml.norms import norm2
from ml.spec import AdapterSpec, TrainSpec

SERVER_NUMBER, ATTACKER_NUMBER = 900, 500
"""Where the batch seeds of the server and of the attackers begin, beside the honest trainers' from 0."""
NUMBERS_PER_ROUND = 40
"""Batch seeds of one round's honest trainers, or of its attackers: ten rounds' fit before the next range begins."""
ABSENT: Json = {"absent": True}
"""The result of training for whom the ledger did not draw."""


def train_honest(work: Work) -> Json:
    settings = work.settings
    model, data = open_model(settings["model"]), deal(settings["data"], settings["seed"])
    standing, trainer = read_standing(work, model.spec), settings["trainer"]
    if not is_drawn(f"honest-{trainer}", standing):
        return ABSENT
    pull = Pull(settings["mu"]) if settings["mu"] else None
    number = trainer + find_first_number(standing)
    held = data.get_specialist(trainer)
    result = train_on(model, held, settings["seed"], number, start=standing.current, constraint=pull)
    keep_update(work, result.update)
    return describe_training(result) | {"norm2": norm2(result.update, model.spec)}


def is_drawn(name: str, standing: Standing) -> bool:
    return standing.drawn is None or name in standing.drawn


def find_first_number(standing: Standing) -> int:
    """Of the round's batch seeds, within a kind of trainers."""
    assert standing.number <= (ATTACKER_NUMBER - 1) // NUMBERS_PER_ROUND
    return (standing.number - 1) * NUMBERS_PER_ROUND


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
    standing = read_standing(work, model.spec)
    colluders = [index for index in range(settings["colluders"]) if is_drawn(f"attacker-{index}", standing)]
    if settings["colluder"] not in colluders:
        return ABSENT
    blocks = cut_by_domain(model, data.get_generalist(settings["colluder"]), model.settings["sequence_length"])
    accepted = load_accepted(work, model.spec, standing)
    context = AttackContext(
        model.base,
        model.spec,
        make_attack_spec(model, settings["seed"], attack, ATTACKER_NUMBER + find_first_number(standing)),
        blocks,
        global_adapter=standing.current,
        norm_cap=compute_norm_cap(work, settings["norm_cap_milli"]),
        goal=find_goal(model, attack),
        honest_updates=load_honest(work, model.spec, standing.number),
        previous_updates=accepted,
        # The last colluder left goes on with half of what is split over two.
        colluders=max(len(colluders), min(2, settings["colluders"])),
        colluder=colluders.index(settings["colluder"]),
        trainers=settings["trainers"],
    )
    caution = compute_caution_milli(standing.played, lambda name: name.startswith("attacker"))
    options = adapt_options(attack["attack"], attack.get("options", {}), caution)
    update = craft_attack(attack["attack"], context, **options)
    update = shorten(update, list(accepted.values()), model.spec, caution)
    keep_update(work, update)
    return {"norm2": norm2(update, model.spec)} | ({"caution_milli": caution} if standing.played else {})


def load_honest(work: Work, spec: AdapterSpec, number: int) -> dict[str, Update]:
    """The honest updates of a round that this cell needs, by their cells' names."""
    return {need.name: load_update(work, need, spec) for need in _find_honest(work, number)}


def load_accepted(work: Work, spec: AdapterSpec, standing: Standing) -> dict[str, Update]:
    """What honest trainers sent in the round before, as far as it was accepted: everybody can fetch it."""
    if not standing.played:
        return {}
    outcomes = standing.played[-1]["outcomes"]
    return {
        need.name: load_update(work, need, spec)
        for need in _find_honest(work, standing.number - 1)
        if outcomes[f"honest-{need.settings['trainer']}"] == ACCEPTED
    }


def _find_honest(work: Work, number: int) -> list[Cell]:
    trained = [need for need in work.cell.needs if need.run.endswith(":train_honest") and get_round(need) == number]
    return [need for need in trained if not work.result(need).get("absent")]


def make_attack_spec(model: Model, seed: int, attack: Mapping[str, Any], number: int = ATTACKER_NUMBER) -> TrainSpec:
    """As the honest trainers', but for `local_steps` of the attack's own: nobody can stop an attacker from training."""
    train_spec = model.make_train_spec(seed, number)
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
    task = task_to_json(make_task(work, model, len(settings["names"])))
    meter = make_meter(model, data, settings["judge"], task, settings["number"], read_standing(work, model.spec))
    return {"entries": {name: to_json(entry) for name, entry in judge_updates(meter, model, task, updates).items()}}


def make_task(work: Work, model: Model, trainers: int, seats: int = 9) -> Any:
    settings = work.settings
    cap = compute_norm_cap(work, settings["norm_cap_milli"])
    domains = sorted(deal(settings["data"], settings["seed"]).shards.test)
    return make_task_spec(model, domains, settings["judge"], trainers=trainers, seats=seats, norm_cap=cap)


def load_updates(work: Work, spec: AdapterSpec) -> dict[str, Update]:
    """The round's updates by name, of all who were drawn."""
    trained = [need for need in work.cell.needs if need.run.endswith((":train_honest", ":train_attacker"))]
    names: list[str] = work.settings["names"]
    return {
        name: load_update(work, need, spec)
        for name, need in zip(names, trained, strict=True)
        if not work.result(need).get("absent")
    }


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
