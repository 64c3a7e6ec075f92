"""Quick runs of experiments on the tiny base, which each file's tests share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml.lab import Json
from ml.lab.cells import read_result
from ml.lab.engine import run_cells
from ml.lab.settings import merge, read_settings
from tests.ml.support import Poisoned

RunQuick = Callable[..., tuple[Json, Json]]


@pytest.fixture(scope="session")
def run_quick(poisoned: Poisoned, tmp_path_factory: pytest.TempPathFactory) -> RunQuick:
    """(figures, results by cell) of the tiny quick form of an experiment, in this process, with these overrides."""
    folder: Path = tmp_path_factory.mktemp("cells")

    def run(name: str, form: str = "tiny", **overrides: Any) -> tuple[Json, Json]:
        changes = merge({"model": {"base": str(poisoned.folder)}}, overrides)
        settings = read_settings(name, form=form, quick=True, overrides=changes)
        planned = settings.get_module().plan(settings)
        run_cells(planned, folder, jobs=0, commit="test")
        results = {cell.name: read_result(folder, cell) for cell in planned}
        return settings.get_module().summarize(settings, results), results

    return run
