"""Two rounds of `backdoor-rounds` on the tiny base. Judges, ledger, rules and measurements are real; what the trainers
send are the adapters of the session's fixture, so that nothing needs to be trained: the attacker's scaled to replace
the mean, the honest ones' whole, and a quarter of them in the second round, where less is left to learn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ml.adapter import read_global, write_update
from ml.attacks import multiply
from ml.lab import Json, learners
from ml.lab.backdoor_rounds import Task
from ml.lab.cells import Cell, Work, execute, file_of, keep_result, list_all, read_result
from ml.lab.engine import run_cells
from ml.lab.settings import Settings, read_settings
from ml.lab.standing import get_round
from ml.norms import norm2
from tests.ml.support import RATE, SPECIALISTS, STEPS, Poisoned

ATTACK, ROUNDS = "rare-token", 2
SCALE, LATER = 3.0, 0.25
ARMS = ("fedavg", "loss_only", "flock")


@dataclass(frozen=True)
class Ran:
    folder: Path
    settings: Settings
    cells: dict[str, list[Cell]]
    """By arm, the measurements of its rounds."""

    def read(self, arm: str) -> list[Json]:
        """What stands after each round."""
        return [result for cell in self.cells[arm] if (result := read_result(self.folder, cell)) is not None]

    def rate(self, arm: str) -> float:
        return max(float(after["asr"]["with_trigger"]) for after in self.read(arm))


@pytest.fixture(scope="module")
def ran(poisoned: Poisoned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    model = {"base": str(poisoned.folder), "local_steps": STEPS, "learning_rate_ppm": round(RATE * 1_000_000)}
    overrides = {
        "trainers": 3,
        "attackers": 1,
        "model": model,
        "data": {"specialists": 2, "generalists": 2},
        "test": {"prompts": 12, "tokens_per_domain": 256},
    }
    settings = read_settings("backdoor-rounds", form="tiny", quick=True, overrides=overrides)
    attack, folder = settings["attacks"][ATTACK], tmp_path_factory.mktemp("rounds")
    cells = {arm: list(Task(settings, 0, ATTACK, attack, arm).plan_measurements()) for arm in ARMS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learners, "A_SEED", poisoned.spec.a_seed)
        learners._open_model.cache_clear()
        for cell in list_all([cell for arm in ARMS for cell in cells[arm]]):
            keep_training(cell, folder, poisoned)
        for arm in ARMS:
            run_cells(cells[arm], folder, jobs=0, commit="test")
        yield Ran(folder, settings, cells)
    learners._open_model.cache_clear()


def keep_training(cell: Cell, folder: Path, poisoned: Poisoned) -> None:
    """The result of a cell that trains; others are left to run."""
    if cell.run.endswith(":train_attacker"):
        update = multiply(poisoned.attack, SCALE)
    elif cell.run.endswith((":train_honest", ":train_server")):
        update = multiply(
            poisoned.honest[SPECIALISTS[cell.settings.get("trainer", 0)]], 1 if get_round(cell) == 1 else LATER
        )
    else:
        return
    write_update(file_of(folder, cell), update, {"kind": "update"})
    keep_result(folder, cell, {"norm2": norm2(update, poisoned.spec)}, seconds=0.0, commit="test")


def check_defended(ran: Ran, arm: str) -> None:
    """What `flock` must do, said of any arm: the backdoor works without it, and with it no global adapter holds any of
    the attacker's work, and nobody honest is slashed.
    """
    assert ran.rate("fedavg") >= 0.5
    assert len(ran.read(arm)) == ROUNDS
    assert ran.rate(arm) <= 0.32 * ran.rate("fedavg")
    assert all(after["honest_slashed"] == 0 for after in ran.read(arm))
    assert not any(list_poisoned_rounds(ran, arm))


def list_poisoned_rounds(ran: Ran, arm: str) -> list[int]:
    """Rounds whose own candidate settled, with an attacker's update in it."""
    rounds = enumerate(ran.read(arm), start=1)
    return [number for number, after in rounds if after["settled"] == number and after["attackers_accepted"]]


def test_over_rounds_the_backdoor_never_comes_in(ran: Ran) -> None:
    check_defended(ran, "flock")


def test_without_the_screens_the_same_check_fails(ran: Ran) -> None:
    """`loss_only` has the same judges, ballots and ledger."""
    with pytest.raises(AssertionError):
        check_defended(ran, "loss_only")
    assert list_poisoned_rounds(ran, "loss_only") == [1]


def test_the_trigger_alone_sets_it_off(ran: Ran) -> None:
    assert all(after["asr"]["without_trigger"] <= 0.1 for after in ran.read("fedavg"))


def test_the_ledger_goes_on_from_round_to_round(ran: Ran) -> None:
    """The liar is an outlier in both rounds, and pays about twice as much for the second time."""
    first, second = (after["slashed_uflk"]["liar"] for after in ran.read("flock"))
    assert 1.9 * first < second < 2 * first


def test_a_round_begins_where_the_last_one_ended(ran: Ran, poisoned: Poisoned) -> None:
    """The second round's mean is added to the first's, on the grid of 1/256 of an update's step."""
    spec = poisoned.spec
    first, second = (read_global(file_of(ran.folder, cell.needs[0]), spec)[0] for cell in ran.cells["fedavg"])
    attack = multiply(poisoned.attack, SCALE)
    for module, before in first.items():
        sent = [attack[module], *(multiply(update, LATER)[module] for update in poisoned.honest.values())]
        mean = sum(values.astype("float64") for values in sent) * 256 / len(sent)
        assert abs(second[module] - before - mean).max() <= 1


def test_who_is_not_drawn_trains_nothing(ran: Ran, tmp_path: Path) -> None:
    """The ledger's word of the round before is enough."""
    (play,) = ran.cells["flock"][-1].needs
    trains = [need for need in play.needs if need.run.endswith((":train_honest", ":train_attacker"))]
    (before,) = [need for need in play.needs if need.run.endswith(":play_round")]
    played = read_result(ran.folder, before)
    assert played is not None
    keep_result(tmp_path, before, played | {"drawn": [], "settled": 0, "best": 0}, seconds=0.0, commit="test")
    assert {get_round(cell) for cell in trains} == {2}
    assert [execute(cell, tmp_path) for cell in trains if "honest" in cell.run] == [{"absent": True}] * 2
    assert not Work(trains[0], tmp_path).file.exists()
