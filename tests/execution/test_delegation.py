"""Stake on another's bond: who may, what it earns, what it risks, how it leaves. Figures are worked out by hand."""

import pytest
from msgspec.structs import replace

from flockchain.codec import Canonical, encode
from flockchain.errors import Refused
from flockchain.execution.block import get_validators, preview_tx
from flockchain.execution.evidence import double_vote
from flockchain.execution.invariants import assert_all
from flockchain.execution.staking import make_validator_target
from flockchain.params import UFLK_PER_FLK
from flockchain.txs import claim_rewards, edit_validator, slash, stake, transfer, unjail, unstake
from flockchain.types.chain import PREVOTE, VoteBody
from flockchain.types.delegation import compute_earned_uflk, compute_worth_uflk
from flockchain.types.rows import Delegation, DelegationMove, DelegationPool, Stake, Unbonding
from tests.execution.stories import UNBONDING_MS, make_quick_genesis
from tests.support.ledger import BOND_UFLK, Ledger, make_address, make_key

VAL0 = make_address("val0")
OWNER0 = make_address("owner0")
TARGET = make_validator_target(VAL0)
FLK = UFLK_PER_FLK
QUIET = {"inflation_ppm_per_year": 0}
"""No new money: what is earned is fees alone."""


def to_val0(amount_uflk: int) -> stake.Body:
    return stake.Body(TARGET, amount_uflk, delegate=OWNER0)


def from_val0(amount_uflk: int) -> unstake.Body:
    return unstake.Body(TARGET, amount_uflk, OWNER0)


def claim() -> claim_rewards.Body:
    return claim_rewards.Body(delegate=OWNER0, target=TARGET)


def offer(share_ppm: int) -> edit_validator.Body:
    return edit_validator.Body(VAL0, "", b"", share_ppm)


def make_ledger(share_ppm: int = 800_000, **params: int) -> Ledger:
    """Four validators of 10,000 FLK; val0 gives its delegators 80 % of what their stake earns."""
    ledger = Ledger(make_quick_genesis(**params))
    ledger.must("owner0", offer(share_ppm))
    return ledger


def pool_of(ledger: Ledger) -> DelegationPool:
    return ledger.state.get(DelegationPool, OWNER0, TARGET)


def row_of(ledger: Ledger, name: str) -> Delegation:
    return ledger.state.get(Delegation, OWNER0, TARGET, make_address(name))


def worth_of(ledger: Ledger, name: str) -> int:
    return compute_worth_uflk(pool_of(ledger), row_of(ledger, name).shares)


def power_of(ledger: Ledger, name: str) -> int:
    members = get_validators(ledger.state, ledger.chain.height + 2)
    return {member.address: member.power for member in members}.get(make_address(name), 0)


def report(ledger: Ledger, height: int, validator: str = "val0") -> slash.Body:
    """Evidence of two prevotes at `height`."""
    votes = [ledger.sign_vote(validator, VoteBody(PREVOTE, height, 0, block_id)) for block_id in (b"", b"x" * 32)]
    return slash.Body("double-vote", encode(double_vote.make_evidence(*votes)))


# -- in and out -------------------------------------------------------------------------------------------------------


def test_a_delegation_leaves_the_balance_and_counts_as_power() -> None:
    ledger = make_ledger()
    before = ledger.balance("alice")
    result = ledger.must("alice", to_val0(500 * FLK))
    assert ledger.balance("alice") == before - 500 * FLK - result.fee_uflk
    assert (pool_of(ledger).amount_uflk, pool_of(ledger).shares, pool_of(ledger).delegators) == (
        500 * FLK,
        500 * FLK,
        1,
    )
    assert ledger.validator("val0").delegated_uflk == 500 * FLK
    assert power_of(ledger, "val0") == BOND_UFLK + 500 * FLK
    assert ledger.validator("val0").bond_uflk == BOND_UFLK


def test_a_delegation_returns_through_the_queue() -> None:
    ledger = make_ledger()
    ledger.must("alice", to_val0(500 * FLK))
    ledger.must("alice", from_val0(500 * FLK))
    assert power_of(ledger, "val0") == BOND_UFLK
    before = ledger.balance("alice")
    ledger.produce(elapsed_ms=UNBONDING_MS - 1)
    assert ledger.balance("alice") == before
    ledger.produce(elapsed_ms=1)
    assert ledger.balance("alice") == before + 500 * FLK
    assert ledger.state.first(Delegation) is None
    assert pool_of(ledger).delegators == 0


def preview(ledger: Ledger, data: bytes) -> str:
    """What would become of it: a refusal of its form, or the result of executing it."""
    try:
        return preview_tx(ledger.state, data, ledger.chain.time_ms).code
    except Refused as refusal:
        return refusal.code


@pytest.mark.parametrize(
    ("sender", "body", "code"),
    [
        ("owner0", to_val0(FLK), "own-bond"),
        ("alice", to_val0(0), "zero-amount"),
        ("alice", to_val0(FLK - 1), "below-minimum"),
        ("alice", to_val0(10**15), "insufficient-balance"),
        ("alice", replace(to_val0(FLK), delegate=make_address("owner1")), "not-found"),
        ("alice", replace(to_val0(FLK), target=make_validator_target(bytes(20))), "not-found"),
        ("alice", replace(to_val0(FLK), target="task:9"), "not-found"),
        ("alice", replace(to_val0(FLK), role="trainer"), "bad-stake"),
        ("alice", replace(to_val0(FLK), share_ppm=5), "bad-stake"),
        ("alice", replace(to_val0(FLK), delegate=b"short"), "bad-stake"),
        ("alice", stake.Body(make_validator_target(make_address("val1")), FLK, delegate=make_address("owner1")),
         "no-delegation"),
        ("alice", from_val0(1), "insufficient-stake"),
        ("alice", claim(), "not-found"),
        ("alice", claim_rewards.Body(), "bad-claim"),
        ("alice", claim_rewards.Body(VAL0, OWNER0, TARGET), "bad-claim"),
        ("owner0", offer(1_000_001), "bad-share"),
    ],
)  # fmt: skip
def test_what_is_no_delegation_is_refused(sender: str, body: Canonical, code: str) -> None:
    ledger = make_ledger()
    assert preview(ledger, ledger.tx(sender, body)) == code
    assert ledger.state.first(Delegation) is None


def test_delegations_are_taken_up_to_a_multiple_of_the_own_bond() -> None:
    """Twice 10,000 FLK at most; when the own bond shrinks, less of what is there counts."""
    ledger = make_ledger(max_delegated_multiple=2)
    ledger.must("alice", to_val0(2 * BOND_UFLK))
    result = ledger.send("bob", to_val0(FLK))
    assert result.code == "delegation-limit"
    assert "2 times the delegate's own bond are 20000000000 uflk" in result.message
    ledger.must("owner0", unstake.Body(TARGET, BOND_UFLK // 2))
    assert power_of(ledger, "val0") == BOND_UFLK // 2 * 3
    assert ledger.validator("val0").delegated_uflk == 2 * BOND_UFLK


def test_a_bond_has_at_most_so_many_delegators() -> None:
    ledger = make_ledger(max_delegators=1)
    ledger.must("alice", to_val0(FLK))
    assert ledger.send("bob", to_val0(FLK)).code == "pool-full"
    ledger.must("alice", to_val0(FLK))


def test_a_rest_below_the_minimum_cannot_stay() -> None:
    ledger = make_ledger()
    ledger.must("alice", to_val0(5 * FLK))
    assert ledger.send("alice", from_val0(4 * FLK + 1)).code == "below-minimum"
    ledger.must("alice", from_val0(4 * FLK))
    ledger.must("alice", from_val0(FLK))


def test_a_validators_minimum_is_its_own_money() -> None:
    """With 1,000 FLK delegated and 500 FLK of its own it is out of the set; delegators cannot bring it back."""
    ledger = make_ledger(slash_double_sign_ppm=1, slash_downtime_ppm=950_000)
    ledger.must("alice", to_val0(1_000 * FLK))
    while not ledger.validator("val0").jailed_until_ms:
        ledger.produce(absent=["val0"])
        assert ledger.chain.height < 80
    assert ledger.validator("val0").bond_uflk == 500 * FLK
    ledger.produce(elapsed_ms=20_000)
    assert ledger.send("owner0", unjail.Body(VAL0)).code == "below-minimum"
    ledger.must("owner0", stake.Body("validator", 500 * FLK, public_key=bytes(make_key("val0").verify_key)))
    ledger.must("owner0", unjail.Body(VAL0))
    assert power_of(ledger, "val0") > 1_000 * FLK


# -- income -----------------------------------------------------------------------------------------------------------


def pay_fee(ledger: Ledger, fee_uflk: int) -> None:
    """One block with a fee, and one that shares it out."""
    ledger.must("heidi", transfer.Body(make_address("grace"), 1, ""), fee_uflk=fee_uflk)
    ledger.produce()


def test_golden_income() -> None:
    """By hand: powers 15,000 10,000 10,000 10,000 of 45,000 FLK. A fee of 9,000,000 uflk gives val0 a third,
    3,000,000. A third of its power is delegated: 1,000,000, of which 80 % go to the delegators, 800,000. Alice holds
    4,000 and Bob 1,000 of 5,000 FLK: 640,000 and 160,000. Its owner has the other 2,200,000.
    """
    ledger = make_ledger(**QUIET)
    ledger.must("alice", to_val0(4_000 * FLK))
    ledger.must("bob", to_val0(1_000 * FLK))
    ledger.skip(4_000, blocks=4)
    owner, rewards = ledger.validator("val0").income_uflk, pool_of(ledger).rewards_uflk
    ledger.must("alice", claim())
    ledger.must("bob", claim())
    ledger.skip(3_000, blocks=3)
    owner, rewards = ledger.validator("val0").income_uflk, pool_of(ledger).rewards_uflk
    earned = [compute_earned_uflk(pool_of(ledger), row_of(ledger, name)) for name in ("alice", "bob")]
    pay_fee(ledger, 9_000_000)
    assert ledger.validator("val0").income_uflk - owner == 2_200_000
    assert pool_of(ledger).rewards_uflk - rewards == 800_000
    now = [compute_earned_uflk(pool_of(ledger), row_of(ledger, name)) for name in ("alice", "bob")]
    assert [after - before for before, after in zip(earned, now, strict=True)] == [640_000, 160_000]
    before = ledger.balance("alice")
    outcome = ledger.produce(ledger.tx("alice", claim()))
    assert ledger.balance("alice") == before + now[0] - outcome.results[0].fee_uflk
    assert [(receipt.kind, receipt.amount_uflk) for receipt in outcome.receipts] == [("income", now[0])]
    assert compute_earned_uflk(pool_of(ledger), row_of(ledger, "alice")) == 0


def test_who_joins_later_has_no_part_of_what_was_earned_before() -> None:
    ledger = make_ledger(**QUIET)
    ledger.must("alice", to_val0(1_000 * FLK))
    ledger.skip(3_000, blocks=3)
    pay_fee(ledger, 10_000_000)
    earned = compute_earned_uflk(pool_of(ledger), row_of(ledger, "alice"))
    assert earned > 100_000
    ledger.must("bob", to_val0(1_000 * FLK))
    assert compute_earned_uflk(pool_of(ledger), row_of(ledger, "bob")) == 0
    assert compute_earned_uflk(pool_of(ledger), row_of(ledger, "alice")) >= earned


def test_moving_stake_pays_what_was_earned() -> None:
    ledger = make_ledger(**QUIET)
    ledger.must("alice", to_val0(1_000 * FLK))
    ledger.skip(3_000, blocks=3)
    pay_fee(ledger, 10_000_000)
    earned = compute_earned_uflk(pool_of(ledger), row_of(ledger, "alice"))
    outcome = ledger.produce(ledger.tx("alice", to_val0(FLK)))
    paid = [receipt.amount_uflk for receipt in outcome.receipts if receipt.kind == "income"]
    assert paid == [earned]
    assert row_of(ledger, "alice").index_nuflk <= pool_of(ledger).index_nuflk


def test_a_blocks_writes_do_not_grow_with_the_number_of_delegators() -> None:
    """Six delegators instead of one: an empty block that pays everyone writes the same rows."""
    written = []
    for names in (("alice",), ("alice", "bob", "carol", "dave", "erin", "frank")):
        ledger = make_ledger()
        for name in names:
            ledger.must(name, to_val0(100 * FLK))
        ledger.skip(4_000, blocks=4)
        before = pool_of(ledger).index_nuflk
        written.append(len(ledger.produce().write_set))
        assert pool_of(ledger).index_nuflk > before
    assert written[0] == written[1]


def test_income_too_small_to_share_waits_and_is_not_lost() -> None:
    """Shares of a thousand FLK, incomes of a few uflk: what the index cannot show yet is pending, to the unit."""
    ledger = make_ledger(**QUIET)
    ledger.must("alice", to_val0(7_777 * FLK + 1))
    for fee in (400, 401, 999, 1_003):
        ledger.must("heidi", transfer.Body(make_address("grace"), 1, ""), fee_uflk=fee)
    ledger.skip(2_000, blocks=2)
    pool = pool_of(ledger)
    assert pool.pending_uflk <= 1
    assert 0 <= pool.rewards_uflk - pool.pending_uflk - compute_earned_uflk(pool, row_of(ledger, "alice")) <= 5


def test_a_higher_share_counts_at_once_and_a_lower_one_after_the_unbonding_time() -> None:
    ledger = make_ledger(200_000)
    ledger.must("alice", to_val0(1_000 * FLK))
    ledger.must("owner0", offer(500_000))
    assert (pool_of(ledger).share_ppm, pool_of(ledger).next_share_ms) == (500_000, 0)
    ledger.must("owner0", offer(0))
    pool = pool_of(ledger)
    assert (pool.share_ppm, pool.next_share_ppm, pool.next_share_ms) == (
        500_000,
        0,
        ledger.chain.time_ms + UNBONDING_MS,
    )
    rewards = pool.rewards_uflk
    ledger.produce(elapsed_ms=UNBONDING_MS - 1)
    assert pool_of(ledger).rewards_uflk > rewards
    ledger.produce(elapsed_ms=1)
    rewards = pool_of(ledger).rewards_uflk
    ledger.produce(elapsed_ms=1_000)
    assert pool_of(ledger).rewards_uflk == rewards


def test_what_the_last_delegator_leaves_goes_to_the_community_pool() -> None:
    """A fee that does not divide; then nobody is left to whom the dust could belong."""
    ledger = make_ledger(**QUIET)
    for name, amount in (("alice", 3 * FLK), ("bob", 7 * FLK + 1)):
        ledger.must(name, to_val0(amount))
    pay_fee(ledger, 1_234_567)
    for name in ("alice", "bob"):
        ledger.must(name, from_val0(worth_of(ledger, name)))
    pool = pool_of(ledger)
    assert (pool.shares, pool.amount_uflk, pool.rewards_uflk, pool.pending_uflk) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("sender", "body"),
    [
        ("owner0", unstake.Body(TARGET, BOND_UFLK - 5)),
        ("alice", to_val0(FLK - 1)),
        ("bob", from_val0(2 * FLK - 1)),
    ],
    ids=["a rest of the own bond", "a first delegation", "a rest of a delegation"],
)
def test_below_the_minimum_is_refused_when_handed_in_and_in_a_block(sender: str, body: Canonical) -> None:
    """`preview_tx` is what a node asks before its mempool takes a transaction."""
    ledger = make_ledger()
    ledger.must("bob", to_val0(2 * FLK))
    data = ledger.tx(sender, body)
    assert preview(ledger, data) == "below-minimum"
    assert ledger.produce(data).results[0].code == "below-minimum"


# -- slashing ---------------------------------------------------------------------------------------------------------


def test_golden_slash_pro_rata() -> None:
    """By hand, 5 %: own bond 10,000 FLK loses 500; the pool of 333.333333 + 666.666667 FLK loses 50; reporter 55."""
    ledger = make_ledger()
    ledger.must("alice", to_val0(333_333_333))
    ledger.must("bob", to_val0(666_666_667))
    ledger.skip(2_000, blocks=2)
    before = ledger.balance("heidi")
    outcome = ledger.produce(ledger.tx("heidi", report(ledger, ledger.chain.height), fee_uflk=0))
    assert outcome.results[0].message == ""
    receipt = next(receipt for receipt in outcome.receipts if receipt.kind == "slash")
    facts = {amount.name: amount.value for amount in receipt.facts}
    assert (facts["bonded_uflk"], facts["delegated_uflk"], facts["unbonding_uflk"]) == (500 * FLK, 50 * FLK, 0)
    assert facts["as_of_height"] == ledger.chain.height - 3
    assert receipt.amount_uflk == 550 * FLK
    assert ledger.balance("heidi") == before + 55 * FLK
    assert (worth_of(ledger, "alice"), worth_of(ledger, "bob")) == (316_666_666, 633_333_333)
    assert ledger.validator("val0").delegated_uflk == 950 * FLK
    assert power_of(ledger, "val0") == 0


def test_a_delegation_made_after_the_offence_does_not_pay() -> None:
    """Alice backed the offence; Bob came when it was done and reported only later. Bob's stake stays what it was."""
    ledger = make_ledger()
    ledger.must("alice", to_val0(1_000 * FLK))
    ledger.skip(2_000, blocks=2)
    offence = ledger.chain.height
    ledger.must("bob", to_val0(3_000 * FLK + 7))
    ledger.must("alice", to_val0(200 * FLK))
    ledger.must("heidi", report(ledger, offence))
    assert worth_of(ledger, "alice") in (1_150 * FLK, 1_150 * FLK - 1)
    assert worth_of(ledger, "bob") in (3_000 * FLK + 7, 3_000 * FLK + 6)
    assert pool_of(ledger).amount_uflk == 4_150 * FLK + 7


def test_stake_that_came_one_block_too_late_to_count_does_not_pay() -> None:
    """Stake of block H has power from H+2: for an offence at H+1 it pays nothing, for one at H+2 it does."""
    for later, taken in ((1, 0), (2, 50 * FLK)):
        ledger = make_ledger()
        ledger.must("alice", to_val0(1_000 * FLK))
        joined = ledger.chain.height
        ledger.skip(3_000, blocks=3)
        ledger.must("heidi", report(ledger, joined + later))
        assert pool_of(ledger).amount_uflk == 1_000 * FLK - taken


def test_the_owners_own_top_up_after_the_offence_does_not_pay() -> None:
    ledger = make_ledger()
    ledger.skip(2_000, blocks=2)
    offence = ledger.chain.height
    ledger.must("owner0", stake.Body("validator", 2_000 * FLK, public_key=bytes(make_key("val0").verify_key)))
    ledger.must("heidi", report(ledger, offence))
    assert ledger.validator("val0").bond_uflk == BOND_UFLK * 95 // 100 + 2_000 * FLK


def test_a_delegation_that_left_is_slashed_only_when_it_left_after_the_offence() -> None:
    """Alice left before the offence and is spared; Bob left after it and pays in the queue."""
    ledger = make_ledger()
    ledger.must("alice", to_val0(1_000 * FLK))
    ledger.must("bob", to_val0(1_000 * FLK))
    ledger.must("alice", from_val0(1_000 * FLK))
    ledger.skip(3_000, blocks=3)
    offence = ledger.chain.height
    ledger.must("bob", from_val0(600 * FLK))
    ledger.must("heidi", report(ledger, offence))
    entries = {entry.owner: entry.amount_uflk for entry in ledger.state.iterate(Unbonding)}
    assert entries == {make_address("alice"): 1_000 * FLK, make_address("bob"): 570 * FLK}
    assert worth_of(ledger, "bob") == 380 * FLK


def test_stake_that_left_counts_until_it_has_no_power_any_more() -> None:
    """Stake that leaves in block H has no power from H+2: it pays for an offence at H+1, and not for one at H+2."""
    for later, rest in ((1, 950 * FLK), (2, 1_000 * FLK)):
        ledger = make_ledger()
        ledger.must("alice", to_val0(1_000 * FLK))
        ledger.skip(3_000, blocks=3)
        bodies = {"alice": from_val0(1_000 * FLK), "owner0": unstake.Body(TARGET, 1_000 * FLK)}
        outcome = ledger.produce(*(ledger.tx(name, body) for name, body in bodies.items()))
        assert [result.code for result in outcome.results] == ["ok", "ok"]
        left = ledger.chain.height
        ledger.skip(3_000, blocks=3)
        ledger.must("heidi", report(ledger, left + later))
        entries = {entry.owner: entry.amount_uflk for entry in ledger.state.iterate(Unbonding)}
        assert entries == {make_address("alice"): rest, OWNER0: rest}


def test_stake_that_came_and_left_after_the_offence_does_not_pay() -> None:
    """What leaves is taken from the oldest: of 300 FLK that left, the 200 of before pay and the 100 of after do not."""
    ledger = make_ledger()
    ledger.must("alice", to_val0(200 * FLK))
    ledger.skip(2_000, blocks=2)
    offence = ledger.chain.height
    ledger.must("alice", to_val0(400 * FLK))
    ledger.must("alice", from_val0(300 * FLK))
    ledger.must("heidi", report(ledger, offence))
    entry = ledger.state.first(Unbonding)
    assert entry is not None
    assert entry.amount_uflk == 290 * FLK
    assert worth_of(ledger, "alice") == 300 * FLK


def test_after_a_slash_the_same_money_buys_more_shares() -> None:
    """Downtime costs 10 % here, of who was there when the window began; Bob comes later and gets what he pays for."""
    ledger = make_ledger(slash_downtime_ppm=100_000)
    ledger.must("alice", to_val0(1_000 * FLK))
    ledger.skip(40_000, blocks=40)
    while not ledger.validator("val0").jailed_until_ms:
        ledger.produce(absent=["val0"])
        assert ledger.chain.height < 120
    assert worth_of(ledger, "alice") == 900 * FLK
    ledger.must("bob", to_val0(450 * FLK))
    assert row_of(ledger, "bob").shares == 500 * FLK
    assert (worth_of(ledger, "alice"), worth_of(ledger, "bob")) == (900 * FLK, 450 * FLK)


def test_who_came_within_the_window_does_not_pay_for_its_downtime() -> None:
    ledger = make_ledger(slash_downtime_ppm=100_000)
    while not ledger.validator("val0").jailed_until_ms:
        if ledger.chain.height == 20:
            ledger.must("alice", to_val0(1_000 * FLK))
        ledger.produce(absent=["val0"])
        assert ledger.chain.height < 80
    assert worth_of(ledger, "alice") in (1_000 * FLK, 1_000 * FLK - 1)
    assert ledger.validator("val0").bond_uflk == BOND_UFLK * 9 // 10


def test_a_validator_that_left_is_still_punished_with_its_delegators() -> None:
    """The owner and a delegator leave whole after the offence; both entries pay, and the validator is tombstoned."""
    ledger = make_ledger()
    ledger.must("alice", to_val0(1_000 * FLK))
    ledger.skip(2_000, blocks=2)
    offence = ledger.chain.height
    ledger.must("owner0", unstake.Body(TARGET, BOND_UFLK))
    ledger.must("alice", from_val0(1_000 * FLK))
    ledger.must("heidi", report(ledger, offence))
    entries = {entry.owner: entry.amount_uflk for entry in ledger.state.iterate(Unbonding)}
    assert entries == {OWNER0: BOND_UFLK * 95 // 100, make_address("alice"): 950 * FLK}
    assert ledger.validator("val0").tombstoned


def test_a_tombstoned_validator_takes_no_delegation_and_lets_go() -> None:
    ledger = make_ledger()
    ledger.must("alice", to_val0(100 * FLK))
    ledger.skip(2_000, blocks=2)
    ledger.must("heidi", report(ledger, ledger.chain.height))
    assert ledger.send("bob", to_val0(FLK)).code == "tombstoned"
    ledger.must("alice", from_val0(95 * FLK))
    assert ledger.send("heidi", report(ledger, ledger.chain.height)).code == "already-punished"


def test_a_pool_keeps_one_uflk_when_everything_is_slashed() -> None:
    """At 100 % a share keeps a price, however small, and the delegator can leave with it."""
    ledger = make_ledger(slash_double_sign_ppm=1_000_000)
    ledger.must("alice", to_val0(100 * FLK))
    ledger.skip(2_000, blocks=2)
    offence = ledger.chain.height
    ledger.must("bob", to_val0(50 * FLK))
    ledger.must("heidi", report(ledger, offence))
    assert pool_of(ledger).amount_uflk == 50 * FLK + 1
    assert abs(worth_of(ledger, "bob") - 50 * FLK) <= 1
    ledger.must("bob", from_val0(worth_of(ledger, "bob")))
    assert ledger.state.find(Stake, OWNER0, TARGET) is None


def test_the_writes_of_a_slash_do_not_grow_with_the_delegators_that_did_not_move() -> None:
    written = []
    for names in (("alice",), ("alice", "bob", "carol", "dave", "erin", "frank")):
        ledger = make_ledger()
        for name in names:
            ledger.must(name, to_val0(100 * FLK))
        ledger.skip(4_000, blocks=4)
        offence = ledger.chain.height
        outcome = ledger.produce(ledger.tx("heidi", report(ledger, offence), fee_uflk=0))
        assert ledger.validator("val0").tombstoned
        written.append(len(outcome.write_set))
    assert written[0] == written[1]


def test_an_offer_is_forgotten_when_its_delegate_and_all_delegators_have_left() -> None:
    """Whoever leaves last takes the pool's row along; nothing of others is in it by then."""
    for first, second in (("owner0", "alice"), ("alice", "owner0")):
        ledger = make_ledger()
        ledger.must("alice", to_val0(5 * FLK))
        for name in (first, second):
            ledger.must(name, from_val0(5 * FLK) if name == "alice" else unstake.Body(TARGET, BOND_UFLK))
            assert ledger.state.find(DelegationPool, OWNER0, TARGET) is not None
            ledger.produce(elapsed_ms=UNBONDING_MS)
        assert ledger.state.find(DelegationPool, OWNER0, TARGET) is None


def test_moves_are_forgotten_after_the_unbonding_time() -> None:
    ledger = make_ledger()
    ledger.must("alice", to_val0(5 * FLK))
    ledger.must("bob", to_val0(5 * FLK))
    assert len(list(ledger.state.iterate(DelegationMove))) == 2
    ledger.produce(elapsed_ms=UNBONDING_MS + 1)
    ledger.must("carol", to_val0(5 * FLK))
    assert [move.delegator for move in ledger.state.iterate(DelegationMove)] == [make_address("carol")]
    assert_all(ledger.state)
