"""Who signs is paid; who is late is paid in full; who is away is not, and nobody gains by it."""

import pytest
from msgspec.structs import replace

from flockchain.errors import Refused
from flockchain.execution.block import check_block, get_validators
from flockchain.execution.income import YEAR_MS, compute_inflation_uflk
from flockchain.params import UFLK_PER_FLK
from flockchain.txs import transfer, unjail
from flockchain.types.rows import Liveness, RecentBlock
from tests.execution.stories import make_quick_genesis
from tests.support.ledger import BOND_UFLK, Ledger, make_address

BOB = make_address("bob")


def test_golden_inflation() -> None:
    """1,200,000 accounts' FLK and 40,000 bonded at 2 % a year: 24,800 FLK in a year, 786 uflk in a second."""
    ledger = Ledger()
    chain = ledger.chain
    assert chain.supply_uflk == (12 * 100_000 + 4 * 10_000) * UFLK_PER_FLK
    assert compute_inflation_uflk(chain, 1_000) == 1_240_000 * UFLK_PER_FLK * 20_000 * 1_000 // (10**6 * YEAR_MS) == 786
    assert compute_inflation_uflk(chain, YEAR_MS) == 10 * UFLK_PER_FLK  # the cap per block


def test_fees_and_inflation_go_to_the_signers_by_power() -> None:
    ledger = Ledger(make_quick_genesis(bonds_uflk=(BOND_UFLK, BOND_UFLK, BOND_UFLK, 2 * BOND_UFLK)))
    ledger.produce(ledger.tx("alice", transfer.Body(BOB, 5, ""), fee_uflk=1_000))
    ledger.produce(elapsed_ms=1_000)
    minted = ledger.chain.supply_uflk - ledger.genesis.supply_uflk
    incomes = [ledger.validator(f"val{i}").income_uflk for i in range(4)]
    assert incomes == [(1_000 + minted) // 5] * 3 + [(1_000 + minted) * 2 // 5]
    assert ledger.chain.community_pool_uflk == 1_000 + minted - sum(incomes)  # dust
    assert ledger.chain.fee_pool_uflk == 0


def test_an_absent_signers_part_waits_and_then_goes_to_the_community_pool() -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.produce(absent=["val3"])
    ledger.produce()
    signer, away = ledger.validator("val0").income_uflk, ledger.state.get(RecentBlock, 1).absent
    assert [(a.validator, a.income_uflk) for a in away] == [(make_address("val3"), signer)]
    pool = ledger.chain.community_pool_uflk
    ledger.produce()
    assert ledger.state.find(RecentBlock, 1) is not None
    ledger.produce()  # late_precommit_blocks is 3
    assert ledger.state.find(RecentBlock, 1) is None
    assert ledger.chain.community_pool_uflk >= pool + signer
    assert ledger.state.get(Liveness, make_address("val3")).missed == 1


def test_a_late_precommit_counts_in_full() -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.produce(absent=["val3"])
    ledger.produce()
    paid = ledger.validator("val0").income_uflk
    assert ledger.validator("val3").income_uflk == 0
    ledger.produce(late_precommits=[ledger.late_precommit("val3", 1)])
    ledger.skip(4_000, blocks=4)
    assert ledger.validator("val3").income_uflk == ledger.validator("val0").income_uflk >= paid
    assert ledger.state.find(Liveness, make_address("val3")) is None


@pytest.mark.parametrize(
    ("deviation", "sentence"),
    [
        ("twice", "none twice"),
        ("signed already", "is not missing from the commit of height 1"),
        ("too old", "no late precommit counts for height 1 after 4"),
        ("other block", "is no precommit for the block of height 1"),
        ("bad signature", "has a wrong signature"),
    ],
)
def test_a_wrong_late_precommit_makes_the_block_invalid(deviation: str, sentence: str) -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.produce(absent=["val3"])
    ledger.produce()
    vote = ledger.late_precommit("val3", 1)
    votes = [vote]
    if deviation == "twice":
        votes = [vote, vote]
    elif deviation == "signed already":
        votes = [ledger.late_precommit("val0", 1)]
    elif deviation == "too old":
        ledger.skip(2_000, blocks=2)
    elif deviation == "other block":
        votes = [ledger.sign_vote("val3", replace(vote.body, block_id=b"x" * 32))]
    else:
        votes = [replace(vote, signature=bytes(64))]
    with pytest.raises(Refused, match=sentence):
        check_block(ledger.state, ledger.build(late_precommits=votes))


def test_who_misses_most_of_a_window_is_jailed_slashed_and_may_return() -> None:
    ledger = Ledger(make_quick_genesis())
    bond = ledger.validator("val3").bond_uflk
    jail = []
    while not jail:
        outcome = ledger.produce(absent=["val3"])
        jail = [receipt for receipt in outcome.receipts if receipt.kind in ("slash", "jail")]
        assert ledger.chain.height < 60
    assert [receipt.kind for receipt in jail] == ["slash", "jail"]
    assert "signed 0 of 27 blocks of the liveness window" in jail[0].reason
    assert ledger.validator("val3").bond_uflk == bond - bond * 100 // 10**6
    assert ledger.chain.community_pool_uflk > bond * 100 // 10**6
    height = ledger.chain.height
    assert make_address("val3") not in {m.address for m in get_validators(ledger.state, height + 2)}
    early = ledger.send("owner3", unjail.Body(make_address("val3")))
    assert early.code == "jailed"
    ledger.produce(elapsed_ms=20_000)
    ledger.must("owner3", unjail.Body(make_address("val3")))
    assert make_address("val3") in {m.address for m in get_validators(ledger.state, ledger.chain.height + 2)}


def test_late_precommits_save_from_jail() -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.produce(absent=["val3"])
    for height in range(1, 60):
        late = [ledger.late_precommit("val3", height - 1)] if height > 1 else []
        ledger.produce(absent=["val3"], late_precommits=late)
    assert ledger.validator("val3").jailed_until_ms == 0
    assert ledger.validator("val3").income_uflk > 0


def test_who_signs_just_enough_is_not_jailed() -> None:
    ledger = Ledger(make_quick_genesis(min_signed_ppm=0))
    for _ in range(40):
        ledger.produce(absent=["val3"])
    assert ledger.chain.window_blocks < 20, "a window has ended"
    assert ledger.validator("val3").jailed_until_ms == 0
