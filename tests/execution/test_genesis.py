"""A genesis document is read, checked, hashed, and becomes the first state."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from flockchain.crypto import format_address
from flockchain.errors import Malformed, Refused
from flockchain.execution.block import get_rotation, get_validators
from flockchain.execution.genesis import build_state, load_state
from flockchain.execution.invariants import assert_all
from flockchain.genesis import (
    Genesis,
    GenesisValidator,
    check_genesis,
    format_genesis,
    load_genesis,
    parse_genesis,
    save_genesis,
    sign_possession,
)
from flockchain.params import Params
from flockchain.rotation import compute_proposer
from flockchain.types.rows import Account, Chain, ValidatorSet
from tests.support.ledger import BOND_UFLK, make_address, make_genesis, make_key

DOCUMENTS = Path(__file__).parents[2] / "genesis"


def changed(edit: Callable[[dict[str, Any]], object]) -> str:
    """The text of a good document after one change."""
    document = json.loads(format_genesis(make_genesis()))
    edit(document)
    return json.dumps(document)


def test_a_document_comes_back_equal(tmp_path: Path) -> None:
    genesis = make_genesis()
    save_genesis(genesis, tmp_path / "genesis.json")
    again = load_genesis(tmp_path / "genesis.json")
    assert again == genesis
    assert again.hash() == genesis.hash()


def test_order_of_accounts_and_validators_does_not_matter() -> None:
    text = changed(lambda d: (d["accounts"].reverse(), d["validators"].reverse()))
    assert parse_genesis(text).hash() == make_genesis().hash()


def test_left_out_parameters_have_their_default() -> None:
    text = changed(lambda d: (d["params"].pop("fees"), d["params"]["stake"].pop("jail_ms")))
    assert parse_genesis(text).params == Params()


def test_every_difference_is_another_chain() -> None:
    genesis = make_genesis()
    others = [
        replace(genesis, time_ms=genesis.time_ms + 1),
        make_genesis(chain_id="flock-2"),
        make_genesis(validators=5),
    ]
    assert len({genesis.hash(), *(other.hash() for other in others)}) == 4


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda d: d.update(colour="red"), "missing or unknown field: colour"),
        (lambda d: d.pop("time_ms"), "missing or unknown field: time_ms"),
        (lambda d: d["params"].update(speed=1), "params: unknown parameter speed"),
        (lambda d: d["params"]["stake"].update(jail_sec=1), "params.stake: unknown parameter jail_sec"),
        (lambda d: d["params"]["stake"].update(jail_ms="soon"), "Expected `int`, got `str`"),
        (
            lambda d: d["params"]["stake"].update(unbonding_ms=1),
            "need trusting_period_ms < evidence_age_ms",
        ),
        (lambda d: d.update(chain_id="My Chain"), "chain id 'My Chain'"),
        (lambda d: d.update(time_ms=0), "time_ms is 0"),
        (lambda d: d.update(time_ms=-1), "Expected `int` >= 0"),
        (lambda d: d.update(time_ms=2**70), "genesis"),
        (lambda d: d.update(accounts={}), "accounts must be a list"),
        (lambda d: d["accounts"].append(d["accounts"][0]), "is listed twice"),
        (lambda d: d["accounts"][0].update(balance_uflk=2**61), "exceeds 1152921504606846976 uflk"),
        (lambda d: d["accounts"][0].update(address="flk1qqqq"), "has a wrong checksum or a wrong letter"),
        (lambda d: d["validators"].clear(), "0 validators: need 1 to"),
        (lambda d: d["validators"][0].update(bond_uflk=5), "bond of 5 uflk of validator"),
        (lambda d: d["validators"][0].update(public_key="zz"), "public_key is not hex: 'zz'"),
        (lambda d: d["validators"][0].update(public_key="aa"), "length >= 32"),
        (lambda d: d["validators"][0].update(possession="00" * 64), "did not sign its owner"),
        (lambda d: d["validators"][0].update(owner=format_address(make_address("alice"))), "did not sign its owner"),
    ],
)
def test_each_deviation_has_its_sentence(edit: Callable[[dict[str, Any]], object], sentence: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_genesis(changed(edit))
    assert sentence in refusal.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"genesis"', "{}"])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="genesis"):
        parse_genesis(text)


def test_the_first_state() -> None:
    genesis = make_genesis(bonds_uflk=[BOND_UFLK, 2 * BOND_UFLK], validators=2)
    state = build_state(genesis)
    assert_all_from_height_0(state)
    chain = state.get(Chain)
    assert (chain.height, chain.time_ms, chain.supply_uflk) == (0, genesis.time_ms, genesis.supply_uflk)
    assert state.get(Account, make_address("alice")).nonce == 0
    assert sorted(m.power for m in get_validators(state, 1)) == [BOND_UFLK, 2 * BOND_UFLK]
    assert [m.address for m in get_validators(state, 1)] == [m.address for m in get_validators(state, 2)]
    assert compute_proposer(get_rotation(state, 1), 0) == make_address("val1")
    assert compute_proposer(get_rotation(state, 1), 1) == compute_proposer(get_rotation(state, 2), 0)


def assert_all_from_height_0(state: Any) -> None:
    assert_all(state)
    assert [row.height for row in state.iterate(ValidatorSet)] == [1, 2]


def test_rows_of_the_first_state_restore_to_its_root() -> None:
    state, tree = load_state(build_state(make_genesis()).rows())
    shuffled = sorted(state.rows(), key=repr)
    assert load_state(shuffled)[0].root == state.root == tree.root


def test_a_possession_proof_serves_one_owner_on_one_chain() -> None:
    genesis = make_genesis(validators=1)
    for proof in (
        sign_possession(make_key("val0"), genesis.chain_id, make_address("mallory")),
        sign_possession(make_key("val0"), "another-chain", make_address("owner0")),
        sign_possession(make_key("mallory"), genesis.chain_id, make_address("owner0")),
    ):
        stolen: GenesisValidator = replace(genesis.validators[0], possession=proof)
        with pytest.raises(Refused, match="did not sign its owner"):
            check_genesis(replace(genesis, validators=(stolen,)))


@pytest.mark.parametrize("path", sorted(DOCUMENTS.glob("*.json")), ids=lambda path: path.name)
def test_the_documents_of_this_project_are_sound(path: Path) -> None:
    genesis = load_genesis(path)
    assert format_genesis(genesis) == path.read_text()
    assert_all_from_height_0(build_state(genesis))


def test_the_readme_names_each_field_with_its_default() -> None:
    text = (DOCUMENTS / "README.md").read_text()
    for name in (*Genesis.__struct_fields__, *GenesisValidator.__struct_fields__):
        assert f"`{name}`" in text, f"genesis/README.md does not name {name}"
    for group in msgspec.structs.fields(Params):
        assert f"`params.{group.name}`" in text
        for field in msgspec.structs.fields(type(group.default)):
            days = f"{field.default // 86_400_000} days"
            row = next((line for line in text.splitlines() if line.startswith(f"| `{field.name}` |")), "")
            assert f"{field.default:,}" in row or days in row, f"genesis/README.md: {field.name} is {field.default}"
