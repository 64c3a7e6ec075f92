"""A shell for all command-line tests, and one real node for those that need a chain."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flockchain.keystore import Keystore
from tests.support.command import Shell
from tests.support.ledger import ACCOUNTS, make_address, make_key
from tests.support.processes import Processes


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    """Nothing of the machine's own settings reaches a command."""
    for name in [name for name in os.environ if name.startswith("FLOCKCHAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLOCKCHAIN_HOME", str(tmp_path / "unused"))
    monkeypatch.setenv("COLUMNS", "80")
    return Shell(monkeypatch, capsys)


@dataclass(frozen=True, slots=True)
class Network:
    """One validator process, and the keystore of its accounts (`alice` ... and the validator's `owner0`)."""

    home: Path
    url: str

    def address(self, name: str) -> bytes:
        return make_address(name)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    keystore = Keystore(folder / "keystore")
    for name in (*ACCOUNTS, "owner0"):
        keystore.add(name, make_key(name), b"")
    keystore.add("locked", make_key("grace2"), b"open sesame")
    with Processes(folder, validators=1) as processes:
        processes.wait_for_height(1)
        yield Network(folder, processes.nodes[0].url)
