"""Over random histories no uflk appears or vanishes, and every node comes to the same state root."""

import random

import pytest
from msgspec.structs import replace

from flockchain.codec import Canonical, encode
from flockchain.execution.evidence import double_vote
from flockchain.execution.genesis import load_state
from flockchain.execution.invariants import assert_all, assert_changes
from flockchain.execution.staking import make_validator_target
from flockchain.genesis import sign_possession
from flockchain.txs import claim_rewards, edit_validator, fund_task, slash, stake, transfer, unjail, unstake
from flockchain.types.chain import PREVOTE, SignedVote, VoteBody
from flockchain.types.rows import (
    Account,
    Chain,
    Delegation,
    DelegationPool,
    RecentBlock,
    Stake,
    Unbonding,
    ValidatorRow,
    row_key,
)
from flockchain.types.task import Holdout
from tests.execution.stories import enroll, make_quick_genesis
from tests.support.ledger import ACCOUNTS, BOND_UFLK, Ledger, make_address, make_beacon_chain, make_key

VALIDATORS = [f"val{i}" for i in range(7)]
OWNER = {**{f"val{i}": f"owner{i}" for i in range(4)}, "val4": "alice", "val5": "bob", "val6": "carol"}
BLOCKS = 120


def random_body(dice: random.Random, ledger: Ledger, sender: str) -> Canonical:
    """Something that `sender` might try, sensible or not."""
    validator = dice.choice(VALIDATORS)
    address = make_address(validator)
    amount = dice.choice([1, 999, 1_000_000, 2_000_000_000, BOND_UFLK // 2, BOND_UFLK, 10**15])
    if dice.random() < 0.4:
        return random_delegation(dice, sender, validator, amount)
    match dice.randrange(9):
        case 0:
            return transfer.Body(make_address(dice.choice(ACCOUNTS)), amount, "")
        case 1:
            return stake.Body(
                "validator",
                amount,
                public_key=bytes(make_key(validator).verify_key),
                possession=sign_possession(make_key(validator), ledger.chain.chain_id, make_address(sender)),
                beacon_head=make_beacon_chain(validator).head,
            )
        case 2 | 3:
            return unstake.Body(make_validator_target(address), amount)
        case 4:
            return claim_rewards.Body(address)
        case 5:
            return unjail.Body(address)
        case 6 if dice.random() < 0.2 and ledger.chain.height:
            place = VoteBody(PREVOTE, dice.randint(1, ledger.chain.height), 0, b"")
            votes = (ledger.sign_vote(validator, replace(place, block_id=block_id)) for block_id in (b"", b"x" * 32))
            return slash.Body("double-vote", encode(double_vote.make_evidence(*votes)))
        case 7:
            role = dice.choice(["trainer", "voter"])
            holdouts = (Holdout("code", bytes(32), 100),) if role == "voter" else ()
            return stake.Body("task:1", amount, role=role, holdouts=holdouts)
        case _:
            return dice.choice([unstake.Body("task:1", amount), fund_task.Body(1, amount)])


def random_delegation(dice: random.Random, sender: str, validator: str, amount: int) -> Canonical:
    """To or from the bond of a validator, or of someone in task 1; or an offer of a validator's owner."""
    in_task = dice.random() < 0.3
    delegate = make_address(dice.choice(["bob", "carol"]) if in_task else OWNER[validator])
    target = "task:1" if in_task else make_validator_target(make_address(validator))
    match dice.randrange(7):
        case 0 | 1 | 2 if delegate != make_address(sender):
            return stake.Body(target, amount, delegate=delegate)
        case 3 | 4:
            return unstake.Body(target, amount, delegate)
        case 5:
            return claim_rewards.Body(delegate=delegate, target=target)
        case _:
            share_ppm = dice.choice([0, 500_000, 999_999])
            return stake.Body("task:1", 0, share_ppm=share_ppm) if in_task else offer_share(validator, share_ppm)


def offer_share(validator: str, share_ppm: int) -> edit_validator.Body:
    return edit_validator.Body(make_address(validator), "", b"", share_ppm)


def random_sender(dice: random.Random) -> str:
    return dice.choice([*ACCOUNTS, *OWNER.values()])


def random_absent(dice: random.Random, ledger: Ledger) -> list[str]:
    """At most one that the commit can do without."""
    rows = ledger.state.get(Chain), list(ledger.state.iterate(ValidatorRow))
    name = dice.choice(VALIDATORS)
    members = [row for row in rows[1] if row.active]
    power = sum(row.bond_uflk + row.delegated_uflk for row in members)
    own = next((row.bond_uflk + row.delegated_uflk for row in members if row.address == make_address(name)), 0)
    return [name] if len(members) > 3 and own * 4 < power and dice.random() < 0.7 else []


def random_late(dice: random.Random, ledger: Ledger) -> list[SignedVote]:
    """Some late precommits of those that still count."""
    names = {make_address(name): name for name in VALIDATORS}
    depth = ledger.chain.params.consensus.late_precommit_blocks
    votes = []
    for row in ledger.state.iterate(RecentBlock):
        for signer in row.absent:
            if row.height + depth > ledger.chain.height and dice.random() < 0.3:
                votes.append(ledger.late_precommit(names[signer.validator], row.height))
    return votes


def make_history(seed: int, txs_per_block: int = 5, **params: int) -> Ledger:
    """A chain of `BLOCKS` random blocks; the ledger asserts every invariant after each."""
    dice = random.Random(seed)
    ledger = Ledger(make_quick_genesis(**params))
    enroll(ledger)
    ledger.produce(*(ledger.tx(OWNER[f"val{i}"], offer_share(f"val{i}", 700_000)) for i in range(4)))
    ledger.must("bob", stake.Body("task:1", 0, share_ppm=500_000))
    for _ in range(BLOCKS):
        senders = [random_sender(dice) for _ in range(dice.randrange(txs_per_block + 1))]
        txs = [ledger.tx(sender, random_body(dice, ledger, sender)) for sender in senders]
        late = random_late(dice, ledger)
        absent = random_absent(dice, ledger)
        ledger.produce(*txs, elapsed_ms=dice.choice([1, 50, 1_000, 20_000]), late_precommits=late, absent=absent)
        ledger._nonces.clear()
    return ledger


@pytest.mark.parametrize("run", range(4))
def test_random_histories_conserve_money_and_replay_to_equal_roots(run: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    ledger = make_history(seed, inflation_ppm_per_year=0)
    assert ledger.chain.supply_uflk == ledger.genesis.supply_uflk
    codes = [result.code for outcome in ledger.outcomes for result in outcome.results]
    assert codes.count("ok") > 20
    assert len(set(codes)) > 3
    replica = Ledger(ledger.genesis, check_all=False)
    for block, outcome in zip(ledger.blocks, ledger.outcomes, strict=True):
        assert replica.decide(block).state_root == outcome.state_root
    assert load_state(ledger.state.rows())[0].root == ledger.state.root


def test_thousands_of_operations_conserve_money_with_delegations() -> None:
    """Up to 50 operations a block, inflation on: every block's invariants hold, and stake moved in all directions."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    ledger = make_history(seed, txs_per_block=50)
    results = [result for outcome in ledger.outcomes for result in outcome.results]
    assert len(results) > 2_000
    done = {result.kind for result in results if result.code == "ok"}
    assert {"stake", "unstake", "claim-rewards", "edit-validator"} <= done
    moves = [receipt.kind for outcome in ledger.outcomes for receipt in outcome.receipts]
    assert {"income", "unbonded"} <= set(moves)
    assert ledger.state.first(DelegationPool) is not None


def test_supply_grows_by_what_is_minted_and_by_nothing_else() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    ledger = make_history(seed)
    elapsed = ledger.blocks[-1].header.time_ms - ledger.blocks[0].header.time_ms
    minted = ledger.chain.supply_uflk - ledger.genesis.supply_uflk
    assert 0 < minted <= ledger.chain.supply_uflk * 20_000 * elapsed // (10**6 * 365 * 86_400_000)


def test_one_uflk_from_nowhere_is_seen_at_once() -> None:
    ledger = Ledger()
    account = ledger.account("alice")
    change = (row_key(account), account, replace(account, balance_uflk=account.balance_uflk + 1))
    with pytest.raises(AssertionError, match="1 uflk appeared, 0 minted"):
        assert_changes([change], 5, 5)


@pytest.mark.parametrize(
    ("kind", "field", "sentence"),
    [
        (Account, "balance_uflk", "the supply is"),
        (Stake, "amount_uflk", "the supply is"),
        (ValidatorRow, "bond_uflk", "validator row says"),
        (ValidatorRow, "delegated_uflk", "validator row says otherwise"),
        (ValidatorRow, "tombstoned", "without the right to it"),
        (Chain, "community_pool_uflk", "the supply is"),
    ],
)
def test_the_full_check_sees_each_broken_row(kind: type, field: str, sentence: str) -> None:
    ledger = Ledger()
    row = ledger.state.first(kind)
    assert row is not None
    ledger.state.put(replace(row, **{field: getattr(row, field) + 1}))
    with pytest.raises(AssertionError, match=sentence):
        assert_all(ledger.state)


@pytest.mark.parametrize(
    ("kind", "field", "change", "sentence"),
    [
        (DelegationPool, "amount_uflk", 1, "the supply is"),
        (DelegationPool, "rewards_uflk", -1, "the supply is"),
        (DelegationPool, "pending_uflk", 2, "uflk earned"),
        (DelegationPool, "index_nuflk", 10**9, "uflk earned"),
        (DelegationPool, "shares", 1, "the shares of a pool"),
        (DelegationPool, "delegators", 1, "the pool says 2"),
        (Delegation, "shares", -1, "the shares of a pool"),
    ],
)
def test_the_full_check_sees_each_broken_pool(kind: type, field: str, change: int, sentence: str) -> None:
    ledger = Ledger(make_quick_genesis())
    ledger.must("owner0", offer_share("val0", 1_000_000))
    target, owner = make_validator_target(make_address("val0")), make_address("owner0")
    ledger.must("alice", stake.Body(target, 5_000_000_000, delegate=owner))
    ledger.skip(4_000, blocks=4)
    assert_all(ledger.state)
    row = ledger.state.first(kind)
    assert row is not None
    ledger.state.put(replace(row, **{field: getattr(row, field) + change}))
    with pytest.raises(AssertionError, match=sentence):
        assert_all(ledger.state)


def test_an_entry_of_the_unbonding_queue_that_no_bond_knows_is_seen() -> None:
    ledger = Ledger()
    ledger.state.put(Unbonding(5, make_address("alice"), "task:1", 1, 0, 5))
    with pytest.raises(AssertionError, match="bonds and the unbonding queue disagree"):
        assert_all(ledger.state)


def test_negative_money_is_seen() -> None:
    with pytest.raises(AssertionError, match="negative money"):
        assert_changes([(b"", None, Account(bytes(20), -1, 0))], 0, -1)
