"""The whole life of one validator with its delegators, in order; after every block no uflk is missing."""

from flockchain.codec import encode
from flockchain.execution.block import get_validators
from flockchain.execution.evidence import double_vote
from flockchain.execution.staking import make_validator_target
from flockchain.genesis import sign_possession
from flockchain.params import UFLK_PER_FLK
from flockchain.txs import claim_rewards, slash, stake, unjail, unstake
from flockchain.types.chain import PREVOTE, VoteBody
from flockchain.types.rows import Delegation, DelegationPool, Stake, Unbonding
from tests.execution.stories import UNBONDING_MS, make_quick_genesis
from tests.support.ledger import Ledger, make_address, make_beacon_chain, make_key

FLK = UFLK_PER_FLK
VAL7, ALICE = make_address("val7"), make_address("alice")
TARGET = make_validator_target(VAL7)


def power(ledger: Ledger) -> int:
    members = get_validators(ledger.state, ledger.chain.height + 2)
    return {member.address: member.power for member in members}.get(VAL7, 0)


def bond(ledger: Ledger, amount_uflk: int, share_ppm: int | None = None) -> stake.Body:
    return stake.Body(
        "validator",
        amount_uflk,
        public_key=bytes(make_key("val7").verify_key),
        possession=sign_possession(make_key("val7"), ledger.chain.chain_id, ALICE),
        beacon_head=make_beacon_chain("val7").head,
        share_ppm=share_ppm,
    )


def test_a_validator_from_its_bond_to_its_tombstone() -> None:
    """Ledger asserts every invariant after each block: bonds, delegations, queue, rewards and pools are the supply."""
    ledger = Ledger(make_quick_genesis(slash_downtime_ppm=10_000))
    names = ("alice", "bob", "carol")
    started = {name: ledger.balance(name) for name in names}

    ledger.must("alice", bond(ledger, 2_000 * FLK, share_ppm=500_000))
    ledger.must("bob", stake.Body(TARGET, 1_000 * FLK, delegate=ALICE))
    assert power(ledger) == 3_000 * FLK
    ledger.skip(40_000, blocks=40)
    assert ledger.validator("val7").income_uflk > 0
    ledger.must("bob", claim_rewards.Body(delegate=ALICE, target=TARGET))

    while not ledger.validator("val7").jailed_until_ms:  # downtime: 1 %
        ledger.produce(absent=["val7"])
        assert ledger.chain.height < 150
    assert power(ledger) == 0
    assert (ledger.validator("val7").bond_uflk, ledger.validator("val7").delegated_uflk) == (1_980 * FLK, 990 * FLK)
    assert ledger.send("alice", unjail.Body(VAL7)).code == "jailed"
    ledger.produce(elapsed_ms=20_000)
    ledger.must("alice", unjail.Body(VAL7))
    assert power(ledger) == 2_970 * FLK

    ledger.must("bob", unstake.Body(TARGET, 490 * FLK, ALICE))
    ledger.skip(3_000, blocks=3)
    offence = ledger.chain.height
    ledger.must("alice", unstake.Body(TARGET, 980 * FLK))
    ledger.must("carol", stake.Body(TARGET, 100 * FLK, delegate=ALICE))
    votes = [ledger.sign_vote("val7", VoteBody(PREVOTE, offence, 0, block_id)) for block_id in (b"", b"x" * 32)]
    evidence = slash.Body("double-vote", encode(double_vote.make_evidence(*votes)))
    ledger.must("heidi", evidence)  # 5 % of 1,980 FLK own, half of it leaving since, and of 500 FLK delegated
    assert ledger.validator("val7").bond_uflk == 950 * FLK
    left = {entry.owner: entry.amount_uflk for entry in ledger.state.iterate(Unbonding)}
    assert left == {make_address("bob"): 490 * FLK, ALICE: 931 * FLK}
    assert ledger.state.get(DelegationPool, ALICE, TARGET).amount_uflk == 575 * FLK
    assert (ledger.validator("val7").tombstoned, power(ledger)) == (True, 0)
    assert ledger.send("heidi", evidence).code == "already-punished"
    assert ledger.send("alice", unjail.Body(VAL7)).code == "tombstoned"
    assert ledger.send("alice", bond(ledger, FLK)).code == "tombstoned"

    ledger.must("alice", unstake.Body(TARGET, 950 * FLK))
    ledger.must("bob", unstake.Body(TARGET, 475 * FLK, ALICE))
    pool = ledger.state.get(DelegationPool, ALICE, TARGET)
    ledger.must("carol", unstake.Body(TARGET, pool.amount_uflk, ALICE))
    ledger.must("alice", claim_rewards.Body(VAL7))
    ledger.produce(elapsed_ms=UNBONDING_MS)
    for kind in (Delegation, DelegationPool, Unbonding):
        assert ledger.state.first(kind) is None
    assert ledger.state.find(Stake, ALICE, TARGET) is None
    lost = {name: started[name] - ledger.balance(name) for name in names}
    assert 118 * FLK < lost["alice"] < 120 * FLK  # 20 of 2,000, then 99 of 1,980; income and fees are less than 1 FLK
    assert 34 * FLK < lost["bob"] < 36 * FLK  # 10 of 1,000, then 25 of 500
    assert lost["carol"] < FLK
