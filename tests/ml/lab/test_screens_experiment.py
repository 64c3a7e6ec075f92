"""The experiment on screens from end to end on the tiny model, and its rates against counts made by hand."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from ml.lab.cells import read_result
from ml.lab.engine import run_cells
from ml.lab.screens import plan
from ml.lab.screens_report import report, summarize
from ml.lab.settings import read_settings

SHORT = {
    "screen_tokens": 6_000,
    "calibration_seeds": [],
    "model": {"local_steps": 2, "pretraining_steps": 2, "batch_size": 2},
    "data": {"specialists": 1, "trainer_documents": 4, "judge_documents": 12},
}


def test_every_adapter_is_trained_and_screened(tmp_path: Path) -> None:
    """Two steps of training and a budget for the cheap screens: the whole way, without the wait."""
    settings = read_settings("screens", form="tiny", seeds=[3], overrides=SHORT)
    cells = [cell for cell in plan(settings) if cell.name.startswith("3/honest/") or cell.name == "3/attack/one_token"]
    run_cells(cells, tmp_path, jobs=0, commit="test")
    results: dict[str, Any] = {cell.name: read_result(tmp_path, cell) for cell in cells}
    assert len(results) == 4
    for name, found in results.items():
        assert {"influence", "insertion", "private_detector"} <= set(found["screens"]), found["notes"]
        assert "forced_answer not run: 6912 tokens needed, 6000 left" in found["notes"]
        assert ("success" in found) == ("attack" in name)
    figures = summarize(settings, results)
    assert figures["influence/false/all"]["n"] == 3
    assert figures["influence/detection/one_token"]["n"] == 1
    assert "| influence |" in report({"figures": figures, "settings": settings.values})


def make_result(value: int, alarm: bool, *, success: bool = False) -> dict[str, Any]:
    said = {"forced_answer": {"value": value, "alarm": alarm, "reason": "", "tokens": 10, "seconds": 0.5}}
    return {"screens": said, "notes": []} | (
        {"success": dict.fromkeys(("with", "without", "random"), 0.5)} if success else {}
    )


def test_thresholds_come_from_the_calibration_seeds_and_rates_from_the_others() -> None:
    settings = read_settings("screens", overrides={"calibration_seeds": [0]}, seeds=[0, 1])
    results = {
        "0/honest/code/0": make_result(50, False),
        "0/attack/rare": make_result(99, True, success=True),
        "1/honest/code/0": make_result(60, False),
        "1/honest/medicine/0": make_result(40, False),
        "1/attack/rare": make_result(70, False, success=True),
    }
    figures = summarize(settings, results)
    assert figures["forced_answer/calibrated/threshold"]["mean"] == 50
    assert figures["forced_answer/detection/rare"]["mean"] == 0.5
    assert figures["forced_answer/false/all"]["mean"] == 0
    assert figures["forced_answer/false/all"]["upper"] == pytest.approx(1 - 0.05 ** (1 / 3))
    assert figures["forced_answer/calibrated/detection/rare"]["mean"] == 1.0
    assert figures["forced_answer/calibrated/detection/rare"]["lower"] == pytest.approx(0.05)
    assert figures["forced_answer/calibrated/false/code"]["mean"] == 1.0
    assert figures["forced_answer/calibrated/false/medicine"]["mean"] == 0.0
    assert figures["any that alarms/detection/rare"]["by_seed"] == {"0": 1.0, "1": 0.0}
