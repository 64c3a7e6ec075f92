"""Privacy: what epsilon costs in loss over all rounds, and what published adapters and figures give away.

Two parts share a seed and its arms. `loss/...`: specialists train round by round under an arm, their global adapter is
measured on text that nobody holds. `leak/...`: many victims, each trained for one round on a random half of one
specialist's documents, beside sequences that occur nowhere else; an attacker who sees an update, or the global adapter
that it went into, says which half it was (ml/lab/membership.py).
"""

from collections.abc import Iterator

from ml.lab import Json, LabError
from ml.lab.cells import Cell
from ml.lab.privacy_report import plot as plot
from ml.lab.privacy_report import report as report
from ml.lab.privacy_report import summarize as summarize
from ml.lab.settings import Settings
from ml.privacy import PrivacyUnavailable, require_library

CELLS = "ml.lab.privacy_cells"


def plan(settings: Settings) -> list[Cell]:
    """Per seed: the base, one measurement for each arm, and each victim of each attacked arm. Raises LabError."""
    try:
        require_library()
    except PrivacyUnavailable as error:
        raise LabError(str(error)) from None
    return [cell for seed in settings.seeds for cell in _plan_seed(settings, seed)]


def _plan_seed(settings: Settings, seed: int) -> Iterator[Cell]:
    facts = {name: settings[name] for name in ("model", "data", "promise", "rounds")} | {"seed": seed}
    measured = facts | {"test": settings["test"]}
    yield Cell(f"loss/base/seed{seed}", f"{CELLS}:measure", measured)
    for arm in settings["arms"]:
        last = _plan_round(settings, facts | {"arm": arm}, settings["rounds"])
        yield Cell(f"loss/{arm['name']}/seed{seed}", f"{CELLS}:measure", measured | {"arm": arm}, (last,))
    for arm in settings["arms"]:
        if arm["name"] in settings["leak"]["arms"]:
            yield from _plan_victims(settings, facts | {"arm": arm})


def _plan_round(settings: Settings, facts: Json, number: int) -> Cell:
    before = (_plan_round(settings, facts, number - 1),) if number > 1 else ()
    trained = tuple(_plan_training(facts, trainer, number, before) for trainer in range(facts["data"]["specialists"]))
    return Cell(f"round/{facts['arm']['name']}/{number}", f"{CELLS}:combine", facts, (*before, *trained))


def _plan_training(facts: Json, trainer: int, number: int, before: tuple[Cell, ...]) -> Cell:
    name = f"train/{facts['arm']['name']}/{trainer}/{number}"
    return Cell(name, f"{CELLS}:train", facts | {"trainer": trainer, "round": number}, before)


def _plan_victims(settings: Settings, facts: Json) -> Iterator[Cell]:
    leak = settings["leak"]
    attacked = facts | {"leak": {name: value for name, value in leak.items() if name not in ("arms", "victims")}}
    others = [trainer for trainer in range(facts["data"]["specialists"]) if trainer != leak["specialist"]]
    needs = tuple(_plan_training(facts, trainer, 1, ()) for trainer in others)
    for victim in range(leak["victims"]):
        name = f"leak/{facts['arm']['name']}/{victim}/seed{facts['seed']}"
        yield Cell(name, f"{CELLS}:attack", attacked | {"victim": victim}, needs)
