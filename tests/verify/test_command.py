"""`flockchain verify` at the command line: JSON, exit codes, what --strict adds."""

from pathlib import Path

import pytest

from tests.support.command import Shell
from tests.verify.chain import Chain
from tests.verify.test_verify import alter_tx_result


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("COLUMNS", "80")
    return Shell(monkeypatch, capsys)


def test_a_sound_chain(shell: Shell, chain: Chain, base: Path) -> None:
    found = shell.must("verify", "--home", chain.home, "--base", base, "--strict")
    assert (found["ok"], found["height"], found["rounds"], found["adapters"]) == (True, chain.tip, 2, 2)
    assert found["problems"] == []
    assert [item["private"] for item in found["unchecked"]] == [True]


def test_strict_fails_where_something_was_left_out(shell: Shell, chain: Chain) -> None:
    assert shell("verify", "--home", chain.home).code == 0
    strict = shell("verify", "--home", chain.home, "--strict", "--json")
    assert strict.code == 1
    assert strict.json["ok"]


def test_a_problem_is_named_and_exits_with_1(shell: Shell, chain: Chain, base: Path) -> None:
    height = alter_tx_result(chain)
    ran = shell("verify", "--home", chain.home, "--base", base, "--json")
    assert ran.code == 1
    assert [problem["height"] for problem in ran.json["problems"]] == [height]
    people = shell("verify", "--home", chain.home, "--base", base)
    assert people.code == 1
    assert f"problem height {height}: transaction 0: code is 'refused'" in people.out
    assert all(len(line) <= 80 for line in people.out.splitlines() if not line.startswith("home "))


@pytest.mark.parametrize("given", ["demo", "demo/network"])
def test_a_demo_s_and_a_devnet_s_home_mean_their_first_node(
    shell: Shell, chain: Chain, base: Path, tmp_path: Path, given: str
) -> None:
    node = tmp_path / "demo" / "network" / "node0"
    node.parent.mkdir(parents=True)
    chain.home.rename(node)
    (node.parent / "devnet.json").write_text("{}")
    found = shell.must("verify", "--home", tmp_path / given, "--base", base)
    assert (found["ok"], found["home"]) == (True, str(node))


def test_nothing_is_written_into_the_home(shell: Shell, chain: Chain, base: Path) -> None:
    def snapshot() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(chain.home.rglob("*")) if path.is_file()}

    before = snapshot()
    shell.must("verify", "--home", chain.home, "--base", base)
    after = snapshot()
    assert {name: data for name, data in after.items() if not name.endswith(("-wal", "-shm"))} == before


def test_a_file_that_is_no_database_gets_one_line(shell: Shell, chain: Chain) -> None:
    path = chain.home / "data" / "chain.sqlite"
    path.write_bytes(b"not a database" * 100)
    ran = shell("verify", "--home", chain.home)
    assert (ran.code, len(ran.error_lines)) == (1, 1)
    assert "the file is damaged" in ran.err
