"""Another chain's light blocks under the same predicates, through an adapter.

A chain in CometBFT's encodings is made here. tendermint-rs publishes model-based vectors in the same JSON
(`light-client/tests/support/model_based/single_step`): with a folder of them named by FLOCKCHAIN_LIGHT_VECTORS each
file is run, and every step must end as it says.
"""

import base64
import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from flockchain.crypto import sha256
from flockchain.light.client import LightClient
from flockchain.light.predicates import Options, verify
from flockchain.light.refusals import NotEnoughTrust, NotVerified
from flockchain.light.stored import MemoryStore
from tests.light.chain import MemoryProvider
from tests.light.comet import (
    CometLightBlock,
    CometRules,
    encode_precommit,
    hash_set,
    parse_light_block,
    parse_set,
    to_ms,
)

RULES = CometRules()
OPTIONS = Options(10_000_000, max_clock_drift_ms=1)
NOW_MS = to_ms("2026-01-01T00:10:00Z")
Json = dict[str, Any]


def make_key(name: str) -> SigningKey:
    return SigningKey(sha256(b"comet", name.encode()))


def make_set(names: str) -> Json:
    members = []
    for name in names:
        public_key = bytes(make_key(name).verify_key)
        address = hashlib.sha256(public_key).hexdigest()[:40].upper()
        value = base64.b64encode(public_key).decode()
        members.append({"address": address, "pub_key": {"value": value}, "voting_power": "50"})
    return {"validators": members}


def make_block(height: int, names: str, next_names: str, signers: str | None = None, **changes: Any) -> CometLightBlock:
    """Signed by `signers`, or by all of its validators."""
    members, following = make_set(names), make_set(next_names)
    signing = make_set(names if signers is None else signers)["validators"]
    time = f"2026-01-01T00:00:{height:02}.5Z"
    header = {
        "version": {"block": "11", "app": "1"},
        "chain_id": "comet",
        "height": str(height),
        "time": time,
        "last_block_id": None,
        **dict.fromkeys(("last_commit_hash", "data_hash", "app_hash", "last_results_hash", "evidence_hash"), ""),
        "validators_hash": hash_set(parse_set(members)).hex(),
        "next_validators_hash": hash_set(parse_set(following)).hex(),
        "consensus_hash": "AB" * 32,
        "proposer_address": members["validators"][0]["address"],
        **changes,
    }
    commit: Json = {"height": str(height), "round": 1, "signatures": []}
    commit["block_id"] = {"hash": "", "part_set_header": {"total": 1, "hash": "CD" * 32}}
    unsigned = parse_light_block({"header": header, "commit": commit}, members, following)
    commit["block_id"]["hash"] = RULES.compute_block_id(unsigned).hex()
    signed = parse_light_block({"header": header, "commit": commit}, members, following)
    for name, member in zip(signers or names, signing, strict=True):
        message = encode_precommit("comet", signed.commit, time)
        signature = base64.b64encode(make_key(name).sign(message).signature).decode()
        commit["signatures"].append(
            {"block_id_flag": 2, "validator_address": member["address"], "timestamp": time, "signature": signature}
        )
    commit["signatures"].append({"block_id_flag": 1, "validator_address": "", "timestamp": time, "signature": ""})
    return parse_light_block({"header": header, "commit": copy.deepcopy(commit)}, members, following)


TRUSTED = make_block(1, "abcd", "abcd")


def test_blocks_of_another_chain_are_verified() -> None:
    verify(RULES, TRUSTED, make_block(2, "abcd", "abce"), NOW_MS, OPTIONS)
    verify(RULES, TRUSTED, make_block(9, "abef", "abef"), NOW_MS, OPTIONS)
    verify(RULES, TRUSTED, make_block(9, "abcd", "abcd", signers="abc"), NOW_MS, OPTIONS)


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (make_block(9, "aefg", "aefg"), "not-enough-trust"),
        (make_block(9, "abef", "abef", signers="ab"), "not-enough-power"),
        (make_block(2, "abce", "abce"), "bad-validators"),
        (make_block(9, "abcd", "abcd", signers="abce"), "bad-commit"),
        (make_block(9, "abcd", "abcd", validators_hash="AB" * 32), "bad-validators"),
        (make_block(9, "abcd", "abcd", chain_id="other"), "wrong-chain"),
        (make_block(9, "abcd", "abcd", time="2025-01-01T00:00:00Z"), "bad-time"),
        (make_block(9, "abcd", "abcd", time="2027-01-01T00:00:00Z"), "from-future"),
    ],
)
def test_its_forgeries_are_refused_with_our_reasons(block: CometLightBlock, code: str) -> None:
    with pytest.raises(NotVerified) as refusal:
        verify(RULES, TRUSTED, block, NOW_MS, OPTIONS)
    assert refusal.value.code == code, refusal.value.message


def test_the_client_bisects_it() -> None:
    sets = ["abcd"] * 5 + ["efgh"] * 6
    blocks = {height: make_block(height, sets[height - 1], sets[height]) for height in range(1, 11)}
    primary, witness = MemoryProvider("primary", blocks), MemoryProvider("witness", blocks)  # type: ignore[arg-type]
    client: LightClient[Any] = LightClient(RULES, primary, [witness], MemoryStore(), OPTIONS)
    client.trust(1, RULES.compute_block_id(blocks[1]), "comet", NOW_MS)
    assert client.update(NOW_MS) == blocks[10]


# Published vectors

FOLDER = Path(os.environ.get("FLOCKCHAIN_LIGHT_VECTORS", "no-vectors-named"))


def find_vectors() -> list[Any]:
    """The files of the folder; a skipped test in their place where none is named."""
    skip = pytest.mark.skip(reason="FLOCKCHAIN_LIGHT_VECTORS names no folder with published vectors")
    found = sorted(FOLDER.glob("*single_step*.json")) + sorted(FOLDER.glob("MC*.json"))
    return [pytest.param(path, id=path.name) for path in found] or [pytest.param(FOLDER, marks=skip)]


@pytest.mark.parametrize("path", find_vectors())
def test_a_published_chain_of_verdicts(path: Path) -> None:
    content = json.loads(path.read_text())
    initial = content["initial"]
    trusted = parse_light_block(initial["signed_header"], None, initial["next_validator_set"])
    options = Options(int(initial["trusting_period"]) // 1_000_000, max_clock_drift_ms=1)
    for step in content["input"]:
        given = step["block"]
        block = parse_light_block(given["signed_header"], given["validator_set"], given["next_validator_set"])
        try:
            verify(RULES, trusted, block, to_ms(step["now"]), options)
            verdict, trusted = "SUCCESS", block
        except NotEnoughTrust:
            verdict = "NOT_ENOUGH_TRUST"
        except NotVerified:
            verdict = "INVALID"
        assert verdict == step["verdict"]
