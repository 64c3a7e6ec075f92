"""Validator bonds: in, out through the queue, power two heights later."""

import pytest
from msgspec.structs import replace

from flockchain.errors import Refused
from flockchain.execution.block import check_block, get_validators
from flockchain.execution.staking import make_validator_target
from flockchain.genesis import sign_possession
from flockchain.params import UFLK_PER_FLK
from flockchain.txs import claim_rewards, edit_validator, stake, unjail, unstake
from flockchain.types.rows import Stake, Unbonding, ValidatorRow
from tests.execution.stories import MIN_BOND_UFLK, UNBONDING_MS, make_quick_genesis
from tests.support.ledger import BOND_UFLK, Ledger, make_address, make_beacon_chain, make_key

CHAIN_ID = "flock-test"


def bond_body(validator: str, owner: str, amount_uflk: int = 2_000 * UFLK_PER_FLK) -> stake.Body:
    return stake.Body(
        "validator",
        amount_uflk,
        public_key=bytes(make_key(validator).verify_key),
        possession=sign_possession(make_key(validator), CHAIN_ID, make_address(owner)),
        beacon_head=make_beacon_chain(validator).head,
        name="new one",
    )


def target_of(validator: str) -> str:
    return make_validator_target(make_address(validator))


def powers(ledger: Ledger, height: int) -> dict[str, int]:
    names = {make_address(f"val{i}"): f"val{i}" for i in range(10)}
    return {names[member.address]: member.power for member in get_validators(ledger.state, height)}


def test_a_new_validator_has_power_two_heights_later() -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.must("alice", bond_body("val7", "alice"))
    assert "val7" not in powers(ledger, ledger.chain.height + 1)
    assert powers(ledger, ledger.chain.height + 2)["val7"] == 2_000 * UFLK_PER_FLK
    ledger.skip(2_000, blocks=2)
    assert ledger.produce(proposer="val7").results == ()


def test_a_bond_leaves_the_balance_and_shows_as_stake() -> None:
    ledger = Ledger(make_quick_genesis())
    before = ledger.balance("alice")
    result = ledger.must("alice", bond_body("val7", "alice"))
    assert ledger.balance("alice") == before - 2_000 * UFLK_PER_FLK - result.fee_uflk
    row = ledger.state.get(Stake, make_address("alice"), target_of("val7"))
    assert (row.amount_uflk, row.role, row.unbonding) == (2_000 * UFLK_PER_FLK, "", ())
    assert ledger.validator("val7").bond_uflk == row.amount_uflk


def test_a_bond_grows() -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.must("owner0", stake.Body("validator", 7, public_key=bytes(make_key("val0").verify_key)))
    assert ledger.validator("val0").bond_uflk == BOND_UFLK + 7


def test_a_bond_below_the_minimum_is_refused() -> None:
    ledger = Ledger(make_quick_genesis())
    result = ledger.send("alice", bond_body("val7", "alice", 500))
    assert result.message == f"stake of 500 uflk is below the minimum bond of {MIN_BOND_UFLK} uflk"


def test_a_bond_beyond_the_balance_is_refused() -> None:
    ledger = Ledger(make_quick_genesis())
    result = ledger.send("alice", bond_body("val7", "alice", 10**15))
    assert result.code == "insufficient-balance"
    assert result.message.startswith("stake of 1000000000000000 uflk exceeds balance of ")


def test_a_key_without_its_own_proof_is_refused() -> None:
    ledger = Ledger(make_quick_genesis())
    stolen = replace(bond_body("val7", "alice"), possession=sign_possession(make_key("val7"), CHAIN_ID, bytes(20)))
    assert ledger.send("alice", stolen).code == "bad-possession"
    assert ledger.state.find(ValidatorRow, make_address("val7")) is None


def test_a_key_serves_one_validator() -> None:
    ledger = Ledger(make_quick_genesis())
    result = ledger.send("alice", bond_body("val0", "alice"))
    assert result.code == "key-in-use"


def test_a_key_serves_once() -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.must("owner0", unstake.Body(target_of("val0"), BOND_UFLK))
    result = ledger.send("owner0", bond_body("val0", "owner0"))
    assert (result.code, "a key serves once" in result.message) == ("key-used", True)


def test_unbonding_stake_returns_after_its_time_and_not_before() -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.must("owner0", unstake.Body(target_of("val0"), BOND_UFLK))
    after = ledger.balance("owner0")
    assert ledger.state.first(Unbonding) is not None
    assert "val0" not in powers(ledger, ledger.chain.height + 2)
    ledger.produce(elapsed_ms=UNBONDING_MS - 1)
    assert ledger.balance("owner0") == after
    outcome = ledger.produce(elapsed_ms=1)
    assert ledger.balance("owner0") == after + BOND_UFLK
    assert [receipt.kind for receipt in outcome.receipts] == ["unbonded"]
    assert ledger.state.first(Unbonding) is None
    assert ledger.state.find(Stake, make_address("owner0"), target_of("val0")) is None


def test_part_of_a_bond_may_leave_but_not_below_the_minimum() -> None:
    ledger = Ledger(make_quick_genesis())
    result = ledger.send("owner0", unstake.Body(target_of("val0"), BOND_UFLK - 5))
    assert result.message == (
        f"a rest of 5 uflk is below the minimum bond of {MIN_BOND_UFLK} uflk: leave that much or nothing"
    )
    ledger.must("owner0", unstake.Body(target_of("val0"), 5))
    assert ledger.validator("val0").bond_uflk == BOND_UFLK - 5


def test_the_unbonding_queue_is_bounded_per_bond() -> None:
    ledger = Ledger(make_quick_genesis(max_unbondings_per_bond=2))
    for _ in range(2):
        ledger.must("owner0", unstake.Body(target_of("val0"), 1))
    result = ledger.send("owner0", unstake.Body(target_of("val0"), 1))
    assert result.code == "too-many-unbondings"


def test_more_than_the_bond_cannot_leave() -> None:
    ledger = Ledger(make_quick_genesis())
    result = ledger.send("alice", unstake.Body(target_of("val0"), 1))
    assert result.message == f"unstake of 1 uflk exceeds the bond of 0 uflk in {target_of('val0')}"


def test_the_last_active_validator_stays() -> None:
    ledger = Ledger(make_quick_genesis(validators=2))
    ledger.must("owner0", unstake.Body(target_of("val0"), BOND_UFLK))
    result = ledger.send("owner1", unstake.Body(target_of("val1"), BOND_UFLK))
    assert result.code == "last-validator"
    assert "is the last active validator" in result.message


def test_the_last_two_cannot_leave_in_one_block() -> None:
    ledger = Ledger(make_quick_genesis(validators=2))
    txs = [ledger.tx(f"owner{i}", unstake.Body(target_of(f"val{i}"), BOND_UFLK)) for i in range(2)]
    assert [result.code for result in ledger.produce(*txs).results] == ["ok", "last-validator"]


def test_the_largest_bonds_make_the_set() -> None:
    ledger = Ledger(make_quick_genesis(max_validators=4))
    ledger.must("alice", bond_body("val7", "alice", 2 * BOND_UFLK))
    chosen = powers(ledger, ledger.chain.height + 2)
    assert chosen["val7"] == 2 * BOND_UFLK
    assert len(chosen) == 4
    left_out = min(((f"val{i}") for i in range(4)), key=lambda name: ledger.validator(name).active)
    assert left_out not in chosen


@pytest.mark.parametrize("target", ["task:01", "task:", "validator:xyz", "house:1", "task:-1", "validator:" + "A" * 40])
def test_a_target_has_one_spelling(target: str) -> None:
    ledger = Ledger(make_quick_genesis())
    block = ledger.build(ledger.tx("owner0", unstake.Body(target, 1)))
    with pytest.raises(Refused, match="is neither validator:<address in hex> nor task:<id>"):
        check_block(ledger.state, block)


def test_income_is_claimed_by_the_owner_alone() -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.skip(5_000, blocks=5)
    income = ledger.validator("val0").income_uflk
    assert income > 0
    assert ledger.send("alice", claim_rewards.Body(make_address("val0"))).code == "not-owner"
    before = ledger.balance("owner0")
    outcome = ledger.produce(ledger.tx("owner0", claim_rewards.Body(make_address("val0"))))
    receipt = next(receipt for receipt in outcome.receipts if receipt.kind == "income")
    assert receipt.amount_uflk >= income
    assert ledger.balance("owner0") == before + receipt.amount_uflk - outcome.results[0].fee_uflk


def test_a_new_beacon_head_waits_before_it_counts() -> None:
    ledger = Ledger(make_quick_genesis(beacon_delay_blocks=5))
    head = make_beacon_chain("another").head
    ledger.must("owner0", edit_validator.Body(make_address("val0"), "renamed", head))
    row = ledger.validator("val0")
    assert (row.name, row.next_beacon_head, row.next_beacon_height) == ("renamed", head, ledger.chain.height + 5)
    again = ledger.send("owner0", edit_validator.Body(make_address("val0"), "", head))
    assert again.code == "beacon-pending"
    ledger.produce(proposer="val0")  # still the old chain
    while ledger.chain.height + 1 < row.next_beacon_height:
        ledger.produce(proposer="val1")
    ledger._beacons[make_address("val0")] = make_beacon_chain("another")
    ledger.produce(proposer="val0")
    assert ledger.validator("val0").next_beacon_head == b""


def test_who_is_not_jailed_cannot_unjail() -> None:
    ledger = Ledger(make_quick_genesis())
    assert ledger.send("owner0", unjail.Body(make_address("val0"))).code == "not-jailed"
