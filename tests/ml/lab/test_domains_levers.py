"""The levers of `domains`: what each option of an arm does, against arms that must come out equal; what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.adapter import read_global
from ml.baselines import make_baseline, start
from ml.baselines.grid_rule import from_grid
from ml.lab import Json, LabError
from ml.lab.cells import Cell, Work, file_of, list_all, read_result
from ml.lab.domains import describe_cost, plan
from ml.lab.engine import run_cells
from ml.lab.learners import load_update, open_model
from ml.lab.settings import Settings, read_settings
from tests.ml.support import Poisoned

ARMS: list[Json] = [
    {"name": "global", "rule": "mean"},
    {"name": "code-alone", "rule": "mean", "weights_ppm": {"code": 1_000_000, "law": 0}},
    {"name": "fedavg", "server": {"name": "fedavg"}},
    {"name": "twice", "server": {"name": "fedavg", "server_rate": 2.0}},
    {"name": "fedadam", "server": {"name": "fedadam", "server_rate": 0.01}},
    {"name": "pulled", "rule": "mean", "mu": 100.0},
    {"name": "slower", "rule": "mean", "schedule_milli": [1000, 100]},
    {"name": "apart", "rule": "mean", "mode": "apart"},
    {"name": "shared", "rule": "mean", "mode": "shared_a"},
    {"name": "wider", "rule": "mean", "rounds": 1, "model": {"rank": 24, "local_steps": 3}},
]


def read(base: str, arms: list[Json], **changes: Any) -> Settings:
    few = {
        "trainers": 2,
        "global_arms": arms,
        "long_controls": [],
        "model": {"base": base, "local_steps": 2, "batch_size": 2},
        "data": {"domains": ["code", "law"], "held_out": ["recipes"], "specialists": 2, "test_documents": 4},
        "test": {"tokens_per_domain": 256},
    }
    return read_settings("domains", form="tiny", quick=True, overrides={**few, **changes})


@pytest.fixture(scope="module")
def ran(poisoned: Poisoned, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Cell]]:
    """Two specialists, two rounds of two steps, once for all arms: the folder, and the planned cells by name."""
    folder = tmp_path_factory.mktemp("levers")
    planned = plan(read(str(poisoned.folder), ARMS))
    run_cells(planned, folder, jobs=0, commit="test")
    return folder, {cell.name: cell for cell in planned}


def get_losses(ran: tuple[Path, dict[str, Cell]], arm: str) -> Any:
    folder, cells = ran
    result = read_result(folder, cells[f"{arm}/seed0"])
    assert result is not None
    return result["documents"]


def test_equal_arms_are_equal(ran: tuple[Path, dict[str, Cell]]) -> None:
    """All weight on one trainer is that trainer alone; FedAvg at rate 1 in floats is the mean in integers."""
    assert get_losses(ran, "code-alone") == get_losses(ran, "local-code")
    assert get_losses(ran, "fedavg") == get_losses(ran, "global")


def test_shared_a_in_floats_is_the_network_up_to_its_grid(ran: tuple[Path, dict[str, Cell]]) -> None:
    for domain, documents in get_losses(ran, "shared").items():
        assert np.array(documents) == pytest.approx(np.array(get_losses(ran, "global")[domain]), rel=2e-3)


@pytest.mark.parametrize("arm", ["twice", "fedadam", "pulled", "slower", "apart", "wider", "local-code", "pooled"])
def test_every_lever_moves_something(ran: tuple[Path, dict[str, Cell]], arm: str) -> None:
    assert get_losses(ran, arm) != get_losses(ran, "global")
    assert get_losses(ran, arm) != get_losses(ran, "base")


def test_a_server_optimizer_remembers_the_round_before(ran: tuple[Path, dict[str, Cell]]) -> None:
    """Both rounds replayed in floats end where the cells ended, up to half a step of the grid per round."""
    folder, cells = ran
    last = cells["fedadam/seed0"].needs[0]
    rounds = [cell for cell in list_all([last]) if cell.run.endswith(":combine")]
    assert len(rounds) == 2
    spec = open_model(last.settings["model"]).spec
    state = start({module: np.zeros((out, spec.rank)) for module, out, _ in spec.shapes})
    for cell in rounds:
        trained = [need for need in cell.needs if need.run.endswith(":train")]
        updates = {
            f"{at}": from_grid(load_update(Work(cell, folder), need, spec), spec) for at, need in enumerate(trained)
        }
        state = make_baseline("fedadam", server_rate=0.01).step(state, updates)
    found, _ = read_global(file_of(folder, last), spec)
    step = 2.0**spec.grid_step_log2
    for module, values in state.model.items():
        assert np.abs(found[module] * step - values).max() <= 1.01 * step


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"rule": "mean", "sevrer": 1}, "arm global has sevrer: choose from name, rule"),
        ({}, "arm global needs either a rule or a server"),
        ({"server": {"name": "fltrust"}}, "server 'fltrust': choose from fedadam, fedavg, fedyogi"),
        ({"rule": "krum", "mode": "apart"}, 'give it rule = "mean"'),
        ({"rule": "mean", "weights_ppm": {"code": 1}}, "weights_ppm must name code, law"),
        ({"rule": "krum", "weights_ppm": {"code": 1, "law": 1}}, "for rule mean or a server"),
        ({"rule": "mean", "schedule_milli": [1000, 500, 100]}, "has 3 parts for 2 rounds"),
        ({"rule": "mean", "schedule_milli": [2000]}, "each part must be 1 to 1000"),
        ({"rule": "mean", "rounds": 70}, "rounds of one arm"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_before_anything_runs(arm: Json, said: str) -> None:
    with pytest.raises(LabError, match=said):
        plan(read("tiny", [{"name": "global"} | arm]))


def test_the_controls_take_another_mode_too() -> None:
    cells = {cell.name: cell for cell in plan(read("tiny", ARMS[:1], control_mode="apart"))}
    modes = {name for name, cell in cells.items() if cell.run == "ml.lab.domains_modes:measure_arm"}
    assert modes == {"local-code/seed0", "local-law/seed0", "pooled/seed0"}
    assert all(cell.run.startswith("ml.lab.domains_modes") for cell in list_all(cells["pooled/seed0"].needs))


def test_the_short_form_is_the_beginning_of_the_full_one() -> None:
    """Its cells are among those of the full form, so that nothing is trained twice; the cost says what is left."""
    full, short = read_settings("domains"), read_settings("domains", form="short")
    keys = {cell.key for cell in list_all(plan(full))}
    trained = {cell.key for cell in list_all(plan(short)) if cell.run.endswith(":train")}
    assert trained < keys
    assert describe_cost(short).startswith("68 cells a seed: 196,608 tokens to train on")
