"""From nothing to a document that nodes can start from: keys, init, genesis."""

import json
from pathlib import Path

import pytest

from flockchain.crypto import format_address
from flockchain.genesis import load_genesis
from flockchain.node.config import load_config
from flockchain.node.key_file import load_key
from tests.support.command import Shell
from tests.support.ledger import make_address, make_genesis

ALICE = format_address(make_address("alice"))


def test_two_operators_build_a_network_s_document(shell: Shell, tmp_path: Path) -> None:
    entries = []
    for name in ("north", "south"):
        home, entry = tmp_path / name, tmp_path / f"{name}.json"
        made = shell.must("init", "--home", home)
        assert made["validator"].startswith("flk1")
        words = ["--chain-id", "flock-1", "--owner", ALICE, "--bond", "5000 FLK", "--name", name, "--out", entry]
        shell.must("genesis", "validator", "--home", home, *words)
        assert "secret" not in entry.read_text()
        entries += ["--validator", entry]
    out = tmp_path / "genesis.json"
    words = ["--account", f"{ALICE}=2.5 FLK", "--out", out, "--time-ms", 1_700_000_000_000]
    built = shell.must("genesis", "build", "--chain-id", "flock-1", *entries, *words)
    assert (built["validators"], built["accounts"], built["supply_uflk"]) == (2, 1, 10_002_500_000)
    assert shell.must("genesis", "validate", out) == built
    assert shell("genesis", "hash", out).out.strip() == built["genesis_hash"] == load_genesis(out).hash().hex()
    again = shell("genesis", "build", "--chain-id", "flock-1", *entries, *words)
    assert (again.code, len(again.error_lines)) == (1, 1)
    assert "nothing was written" in again.err


def test_init_names_a_block_to_trust_or_says_how_one_is_written(shell: Shell, tmp_path: Path) -> None:
    ran = shell("init", "--home", tmp_path / "node", "--trust", "12:5f2c")
    assert ran.code == 1
    assert "is no HEIGHT:BLOCK_ID" in ran.err
    assert not (tmp_path / "node").exists()
    shell.must("init", "--home", tmp_path / "node", "--trust", f"12:{'5f' * 32}")
    assert load_config(tmp_path / "node" / "config.toml").sync.trust == f"12:{'5f' * 32}"


def test_init_joins_a_network_and_seals_its_keys(shell: Shell, tmp_path: Path) -> None:
    from flockchain.genesis import save_genesis

    document, secret, home = tmp_path / "genesis.json", tmp_path / "secret", tmp_path / "home"
    save_genesis(make_genesis(), document)
    secret.write_text("open sesame\n")
    words = ["--genesis", document, "--peer", "192.0.2.7:26600", "--passphrase-file", secret, "--full-node"]
    ran = shell("init", "--home", home, *words)
    assert ran.code == 0, ran.err
    assert "next: flockchain start --home" in ran.out
    config = load_config(home / "config.toml")
    assert config.p2p.persistent_peers == ("192.0.2.7:26600",)
    assert not config.validator.enabled
    assert "sealed" in json.loads((home / "validator_key.json").read_text())
    assert (home / "validator_key.json").stat().st_mode & 0o777 == 0o600
    load_key(home / "validator_key.json", b"open sesame")
    assert load_genesis(home / "genesis.json") == make_genesis()
    second = shell("init", "--home", home)
    assert (second.code, len(second.error_lines)) == (1, 1)
    assert "already is a node's home" in second.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["init", "--peer", "nowhere"], 1, "is no host:port"),
        (["init", "--genesis", "none.json"], 1, "cannot read none.json"),
        (["init", "--passphrase-file", "none"], 1, "cannot read the passphrase file"),
        (["start", "--home", "none"], 1, "flockchain init"),
        (["genesis", "validate", "none.json"], 1, "cannot read none.json"),
        (["genesis", "validate", "broken.json"], 1, "broken.json: genesis is not JSON"),
        (["genesis", "hash", "cheated.json"], 1, "cheated.json"),
        (["genesis", "build", "--chain-id", "x", "--out", "o"], 2, "Missing option"),
        (["genesis", "build", "--chain-id", "x", "--validator", "empty.json", "--out", "o"], 1, "missing or unknown"),
        (["keys", "show", "nobody"], 1, "no key 'nobody'"),
        (["keys", "new", "../up", "--test-key"], 1, "cannot name a key"),
        (["status", "--node", "http://127.0.0.1:9"], 1, "no node answers"),
        (["verify", "--home", "none"], 1, "holds no chain"),
        (["verify", "--base", "none"], 1, "is no model folder"),
        (["score", "none", "--data", "x"], 1, "does not exist"),
        (["score", "empty.json", "--data", "x"], 1, "give --task N or --task-file FILE"),
        (["score", "empty.json", "--data", "x", "--task-file", "empty.json"], 1, "is not a task"),
        (["adapter", "export", "0", "out"], 2, "greater than or equal to 1"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_clear_line(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty.json").write_text("{}")
    from flockchain.genesis import format_genesis

    cheated = json.loads(format_genesis(make_genesis()))
    cheated["validators"][0]["possession"] = "00" * 64
    (tmp_path / "cheated.json").write_text(json.dumps(cheated))
    ran = shell(*words)
    assert (ran.code, len(ran.error_lines)) == (code, 1), ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
