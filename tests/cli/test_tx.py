"""`flockchain tx` against a real node: what is sent becomes final, what is refused says why in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from flockchain.codec import decode, encode
from flockchain.crypto import format_address
from flockchain.execution.ballots import compute_seal
from flockchain.txs import TYPES, vote
from flockchain.types.task import Ballot
from flockchain.workers.sealing import compute_salt
from tests.cli.conftest import Network
from tests.support.command import Shell, to_human
from tests.support.ledger import make_key
from tests.support.rounds import make_spec

BOB = "bob"


def on(network: Network, key: str = "alice") -> list[str | Path]:
    return ["--key", key, "--home", network.home]


def address(network: Network, name: str) -> str:
    return format_address(network.address(name))


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "task.json"
    path.write_text(json.dumps(to_human(make_spec())))
    return path


def test_every_transaction_type_has_its_command(shell: Shell) -> None:
    listed = shell("tx", "--help").out
    assert all(f" {kind} " in listed for kind in TYPES)


def test_a_transfer_is_final_and_moves_money(shell: Shell, network: Network) -> None:
    before = shell.must("query", "account", address(network, BOB), "--home", network.home)["balance_uflk"]
    result = shell.must("tx", "transfer", *on(network), "--to", address(network, BOB), "--amount-uflk", 7)
    assert result.keys() == {"hash", "height", "code", "message"}
    assert (result["code"], result["message"]) == ("ok", "")
    assert result["height"] > 0
    after = shell.must("query", "account", address(network, BOB), "--home", network.home)["balance_uflk"]
    assert after == before + 7


def test_without_waiting_the_height_is_null(shell: Shell, network: Network) -> None:
    words = ["tx", "transfer", *on(network, "dave"), "--to", address(network, BOB), "--amount-uflk", 1, "--no-wait"]
    result = shell.must(*words)
    assert (result["height"], result["code"]) == (None, None)
    assert len(result["hash"]) == 64


def test_a_task_from_creation_to_leaving(shell: Shell, network: Network, spec_file: Path) -> None:
    shell.must("tx", "create-task", *on(network), "--spec", spec_file, "--pool-uflk", 900_000_000)
    task = shell.must("query", "tasks", "--home", network.home)["items"][-1]["id"]
    shell.must("tx", "fund-task", *on(network, "bob"), "--task", task, "--amount-uflk", 5)
    bond = ["--target", f"task:{task}", "--amount-uflk", 100_000_000]
    shell.must("tx", "stake", *on(network, "carol"), *bond, "--role", "trainer")
    shell.must("tx", "leave-task", *on(network, "carol"), "--task", task)
    shell.must("tx", "unstake", *on(network, "carol"), *bond)
    found = shell.must("query", "tasks", task, "--home", network.home)
    assert found["pool_uflk"] == 900_000_005
    assert found["spec"]["phases"]["train_ms"] == 60_000


def test_a_validator_bonds_more_edits_its_name_and_claims(shell: Shell, network: Network) -> None:
    owner = [*on(network, "owner0"), "--index", 0]
    shell.must("tx", "stake", *owner, "--target", "validator", "--amount-uflk", 1_000_000)
    shell.must("tx", "edit-validator", *owner, "--name", "north")
    shell.must("tx", "claim-rewards", *owner)
    (validator,) = shell.must("query", "validators", "--home", network.home)["items"]
    assert validator["name"] == "north"
    assert validator["bond_uflk"] == 10_000_000_000 + 1_000_000
    refused = shell("tx", "unjail", *owner)
    assert (refused.code, len(refused.error_lines)) == (1, 1)
    assert "is not jailed" in refused.err
    last = shell("tx", "unstake", *owner, "--target", "validator", "--amount-uflk", 10_001_000_000)
    assert "is the last active validator" in last.err


def test_a_delegation_from_offer_to_claim(shell: Shell, network: Network) -> None:
    """The validator offers a share, alice stakes on it by the validator's address, sees it, claims and leaves."""
    owner = [*on(network, "owner0"), "--index", 0]
    shell.must("tx", "edit-validator", *owner, "--share-ppm", 500_000)
    validator = shell.must("query", "validators", "--home", network.home)["items"][0]
    assert validator["share_ppm"] == 500_000
    where = ["--target", "validator", "--for", validator["address"]]
    shell.must("tx", "stake", *on(network), *where, "--amount-uflk", 5_000_000_000)
    shell.must("tx", "transfer", *on(network, "bob"), "--to", validator["owner"], "--amount-uflk", 1)
    found = shell.must("query", "delegations", "--delegator", address(network, "alice"), "--home", network.home)
    assert [(item["amount_uflk"], item["delegate"]) for item in found["items"]] == [(5_000_000_000, validator["owner"])]
    (pool,) = shell.must("query", "pools", "--home", network.home)["items"]
    assert (pool["amount_uflk"], pool["delegators"]) == (5_000_000_000, 1)
    shell.must("tx", "claim-rewards", *on(network), "--for", validator["address"])
    shell.must("tx", "unstake", *on(network), *where, "--amount-uflk", 5_000_000_000)
    leaving = shell.must("query", "unbonding", "--owner", address(network, "alice"), "--home", network.home)
    assert [item["amount_uflk"] for item in leaving["items"]] == [5_000_000_000]
    wrong = shell("tx", "stake", *on(network), *where, "--amount-uflk", 5, "--role", "trainer")
    assert wrong.code == 2


def test_a_sealed_vote_is_kept_before_it_is_sent_and_never_made_again(
    shell: Shell, network: Network, tmp_path: Path
) -> None:
    """No round is in COMMIT here, so the chain refuses; what matters is what the key has bound itself to."""
    ballot = tmp_path / "ballot.json"
    ballot.write_text(json.dumps({"task": 77, "round": 1, "figures": []}))
    refused = shell("tx", "vote", *on(network, "erin"), "--seal", ballot)
    assert (refused.code, refused.error_lines) == (1, ["flockchain: refused (unknown-task): there is no task 77"])
    outbox = network.home / "workers" / "erin" / "outbox"
    kept = decode(Ballot, (outbox / "task77-round1-ballot.body").read_bytes())
    body = decode(vote.Body, (outbox / "task77-round1-seal.body").read_bytes())
    genesis_hash = bytes.fromhex(shell.must("status", "--home", network.home)["genesis_hash"])
    salt = compute_salt(make_key("erin"), 77, 1)
    assert body.seal == compute_seal(genesis_hash, kept, network.address("erin"), salt)
    entry = {"root": "ab" * 32, "status": "abstain", "reason": "", "domains": [], "screens": []}
    ballot.write_text(json.dumps({"task": 77, "round": 1, "figures": [entry]}))
    second = shell("tx", "vote", *on(network, "erin"), "--seal", ballot)
    assert second.code == 1
    assert "keeps another ballot" in second.err
    assert encode(kept) == (outbox / "task77-round1-ballot.body").read_bytes()


def test_a_running_worker_of_the_key_is_not_disturbed(shell: Shell, network: Network, tmp_path: Path) -> None:
    from flockchain.workers.outbox import Outbox

    ballot = tmp_path / "ballot.json"
    ballot.write_text(json.dumps({"task": 78, "round": 1, "figures": []}))
    with Outbox(network.home / "workers" / "frank" / "outbox"):
        ran = shell("tx", "vote", *on(network, "frank"), "--seal", ballot)
    assert ran.code == 1
    assert "another worker uses" in ran.err


def refuse_words(network: Network, tmp_path: Path) -> dict[str, tuple[list[Any], int, str]]:
    """Name -> (words, exit code, what the one line says)."""
    bob = address(network, BOB)
    pay = ["tx", "transfer", *on(network), "--to", bob, "--amount-uflk"]
    wrong = tmp_path / "wrong"
    wrong.write_text("shut sesame")
    bad_json = tmp_path / "bad.json"
    bad_json.write_text('{\n  "name": "x",\n  oops\n}')
    human = to_human(make_spec())
    human["phases"]["train_ms"] = "sixty seconds"
    bad_unit = tmp_path / "unit.json"
    bad_unit.write_text(json.dumps(human, indent=2))
    line = next(n for n, text in enumerate(bad_unit.read_text().splitlines(), 1) if '"train_ms"' in text)
    human = to_human(make_spec())
    human["phazes"] = human.pop("phases")
    unknown = tmp_path / "unknown.json"
    unknown.write_text(json.dumps(human, indent=2))
    toml = tmp_path / "bad.toml"
    toml.write_text("name = \n")
    create = ["tx", "create-task", *on(network), "--pool-uflk", 1, "--spec"]
    evidence = tmp_path / "evidence.json"
    evidence.write_text(json.dumps({"evidence_kind": "double-vote", "evidence": "90"}))
    return {
        "unknown key": (["tx", "transfer", *on(network, "zoe"), "--to", bob, "--amount-uflk", 1], 1, "no key 'zoe'"),
        "checksum": ([*pay[:-3], "--to", bob[:-1] + "q", "--amount-uflk", 1], 2, "wrong checksum"),
        "negative": ([*pay, -5], 2, "greater than or equal to 1"),
        "no number": ([*pay, "many"], 2, "--amount-uflk"),
        "no amount": (pay[:-1], 2, "Missing option"),
        "unknown option": ([*pay, 1, "--speed", 3], 2, "No such option"),
        "balance": ([*pay, 10**15], 1, "transfer of 1000000000000000 uflk exceeds"),
        "fee": ([*pay, 1, "--fee-uflk", 1], 1, "fee"),
        "memo": ([*pay, 1, "--memo", "x" * 300], 1, "256"),
        "wrong node": ([*pay, 1, "--node", "http://127.0.0.1:9"], 1, "no node answers"),
        "no url": ([*pay, 1, "--node", "nonsense"], 1, "no node answers"),
        "passphrase": (
            ["tx", "transfer", *on(network, "locked"), "--to", bob, "--amount-uflk", 1, "--passphrase-file", wrong],
            1,
            "the passphrase does not open key 'locked'",
        ),
        "no passphrase file": (
            ["tx", "transfer", *on(network, "locked"), "--to", bob, "--amount-uflk", 1, "--passphrase-file", "/none"],
            1,
            "cannot read the passphrase file",
        ),
        "spec json": ([*create, bad_json], 1, "bad.json line 3: not JSON"),
        "spec unit": ([*create, bad_unit], 1, f"unit.json line {line}: phases.train_ms: 'sixty seconds' is not"),
        "spec field": ([*create, unknown], 1, "phazes: unknown field"),
        "spec toml": ([*create, toml], 1, "line 1"),
        "spec missing": ([*create, tmp_path / "none.json"], 1, "cannot read"),
        "target": (["tx", "stake", *on(network), "--target", "moon", "--amount-uflk", 1], 1, "stake target"),
        "role": (
            ["tx", "stake", *on(network), "--target", "task:1", "--amount-uflk", 1, "--role", "king"],
            2,
            "--role",
        ),
        "holdout": (
            ["tx", "stake", *on(network), "--target", "task:1", "--amount-uflk", 1, "--holdout", "law=x"],
            1,
            "--holdout needs --base",
        ),
        "no task": (["tx", "fund-task", *on(network), "--task", 999, "--amount-uflk", 1], 1, "999"),
        "no file": (["tx", "submit-adapter", *on(network), "--task", 1, "--file", "none"], 2, "does not exist"),
        "vote": (["tx", "vote", *on(network)], 2, "give either --seal FILE or --open"),
        "nothing sealed": (["tx", "vote", *on(network), "--open", "--task", 999, "--round", 1], 1, "999"),
        "evidence": (["tx", "slash", *on(network), "--evidence", evidence], 1, "Evidence: Expected `array`"),
        "validator": (["tx", "unjail", *on(network), "--index", 5], 1, "validator_key.json does not exist"),
        "unknown command": (["tx", "steal"], 2, "No such command"),
    }


NAMES = (
    *("unknown key", "checksum", "negative", "no number", "no amount", "unknown option", "balance", "fee", "memo"),
    *("wrong node", "no url", "passphrase", "no passphrase file", "spec json", "spec unit", "spec field", "spec toml"),
    *("spec missing", "target", "role", "holdout", "no task", "no file", "vote", "nothing sealed", "evidence"),
    *("validator", "unknown command"),
)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_gets_one_clear_line(shell: Shell, network: Network, tmp_path: Path, name: str) -> None:
    words, code, said = refuse_words(network, tmp_path)[name]
    ran = shell(*words)
    assert ran.code == code, ran.err
    assert len(ran.error_lines) == 1, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_the_table_of_bad_input_is_whole(network: Network, tmp_path: Path) -> None:
    assert set(refuse_words(network, tmp_path)) == set(NAMES)


def test_a_refusal_in_json_keeps_stdout_for_programs(shell: Shell, network: Network) -> None:
    to = address(network, BOB)
    ran = shell("tx", "transfer", *on(network), "--to", to, "--amount-uflk", 10**15, "--json")
    assert ran.code == 1
    assert ran.json["height"] is None
    assert ran.json["code"] == "insufficient-balance"
    assert ran.json["message"] in ran.err
