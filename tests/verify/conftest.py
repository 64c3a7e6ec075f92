"""One finished chain for all tests; each test that alters it has a copy of its own."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.verify.chain import Chain, make_base, make_chain


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("verify") / "base")


@pytest.fixture(scope="session")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return make_chain(tmp_path_factory.mktemp("verify") / "home", base)


@pytest.fixture
def chain(finished: Chain, tmp_path: Path) -> Chain:
    shutil.copytree(finished.home, tmp_path / "home")
    return dataclasses.replace(finished, home=tmp_path / "home")


@pytest.fixture(autouse=True)
def _no_other_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases that the machine happens to have must not decide what is checked."""
    monkeypatch.setenv("FLOCKCHAIN_CACHE", str(tmp_path / "cache"))
