"""The cells of `backdoor-rounds` beside those of `backdoor`: a round under one defence, and what it came to."""

from ml.adapter import GlobalAdapter, read_global, write_global, zero_global
from ml.factors import make_global_factors
from ml.lab import Json
from ml.lab.backdoor_cells import load_updates, make_task
from ml.lab.cells import Work
from ml.lab.committee import run_committee
from ml.lab.defences import COMMITTEE_ARMS, combine, count_tolerated, to_global_grid
from ml.lab.learners import Model, open_model
from ml.lab.measuring import measure
from ml.lab.standing import ACCEPTED, NOT_DRAWN, Standing, read_standing

COUNTED = ("honest_left_out", "honest_slashed", "attackers_accepted")


def play_round(work: Work) -> Json:
    """One round of one arm; its file is the global adapter afterwards. The result is that of ml/lab/standing.py."""
    model = open_model(work.settings["model"])
    standing = read_standing(work, model.spec)
    if work.settings["arm"].startswith(COMMITTEE_ARMS):
        found, adapter = _decide(work, model, standing)
    else:
        found, adapter = _combine(work, model, standing)
    write_global(work.file, adapter or zero_global(model.spec), {"kind": "global"})
    return {"round": standing.number} | found


def _combine(work: Work, model: Model, standing: Standing) -> tuple[Json, GlobalAdapter]:
    """Without a committee everybody is in, in every round."""
    updates = load_updates(work, model.spec)
    honest = [name for name in updates if name.startswith("honest")]
    made = combine(
        work.settings["arm"], updates, model.spec, trusted={}, rate=None, honest=honest, current=standing.current
    )
    found: Json = {"settled": standing.number, "best": standing.number, "drawn": None, "said": {}}
    return found | {"outcomes": dict.fromkeys(updates, ACCEPTED)}, to_global_grid(made, model.spec)


def _decide(work: Work, model: Model, standing: Standing) -> tuple[Json, GlobalAdapter | None]:
    decided = run_committee(work, model, make_task, load_updates(work, model.spec), standing)
    absent = [name for name in work.settings["names"] if name not in decided.outcomes]
    decided.outcomes |= dict.fromkeys(absent, NOT_DRAWN)
    settles = decided.factors is not None
    found: Json = {"settled": standing.number if settles else standing.settled, "best": decided.best}
    found |= {"drawn": decided.drawn, "said": decided.said} | decided.describe()
    return found, to_global_grid(decided.factors, model.spec) if decided.factors is not None else standing.current


def measure_round(work: Work) -> Json:
    """What the needed round left behind, or the bare base where none is needed."""
    settings = work.settings
    if not work.cell.needs:
        return {"within_bound": True} | measure(settings, None, work.folder)
    (play,) = work.cell.needs
    played, names = work.result(play), play.settings["names"]
    kept = ("outcomes", "reasons", "outcome", "slashed_uflk", "settled", "best", *COUNTED)
    bound = count_tolerated(play.settings["arm"], len(names))
    found: Json = {name: played[name] for name in kept if name in played}
    found["within_bound"] = bound is None or sum(name.startswith("attacker") for name in names) <= bound
    model = open_model(settings["model"])
    adapter = read_global(work.file_of(play), model.spec)[0]
    return found | measure(settings, make_global_factors(adapter, model.spec), work.folder)
