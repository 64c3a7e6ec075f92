"""A pool of integers beside the same history in exact fractions: after thousands of moves they differ by dust alone."""

import random
from collections import defaultdict
from fractions import Fraction

from msgspec.structs import replace

from flockchain.codec import decode, encode
from flockchain.execution.balances import get_account, increase_community_pool
from flockchain.execution.context import Context
from flockchain.execution.delegation import (
    begin_undelegation,
    get_delegation,
    give_delegators_part,
    increase_delegation,
    set_share,
)
from flockchain.execution.genesis import build_state
from flockchain.execution.invariants import assert_bonds, assert_pools, compute_money_uflk
from flockchain.execution.lots import MAX_LOTS
from flockchain.execution.release import process_unbonding
from flockchain.execution.slashing import slash_bond
from flockchain.execution.staking import make_validator_target
from flockchain.params import PPM
from flockchain.types.delegation import compute_earned_uflk, compute_worth_uflk
from flockchain.types.ids import I63_MAX
from flockchain.types.rows import Chain, DelegationPool, Stake
from tests.execution.stories import make_quick_genesis
from tests.support.ledger import ACCOUNTS, make_address

MOVES = 3_000
MEMORY_MS = 60
"""Unbonding time, for which lots are told apart: no slash or income here reaches further back."""
TARGET, DELEGATE = make_validator_target(make_address("val0")), make_address("owner0")
SHARE_PPM = 900_000


class Exact:
    """What each delegator has and has earned, in fractions of a uflk."""

    def __init__(self) -> None:
        self.lots: dict[bytes, list[tuple[int, Fraction]]] = defaultdict(list)
        self.earned: dict[bytes, Fraction] = defaultdict(Fraction)

    def worth(self, who: bytes) -> Fraction:
        return sum((amount for _, amount in self.lots[who]), Fraction(0))

    def total(self) -> Fraction:
        return sum((self.worth(who) for who in list(self.lots)), Fraction(0))

    def join(self, who: bytes, height: int, amount: int) -> None:
        young = [lot for lot in self.lots[who] if lot[0] >= height - MEMORY_MS]
        old = [lot for lot in self.lots[who] if lot[0] < height - MEMORY_MS]
        young.append((height, Fraction(amount)))
        while len(young) > MAX_LOTS:
            old.append(young.pop(0))
        self.lots[who] = [(0, sum((have for _, have in old), Fraction(0))), *young]

    def leave(self, who: bytes, amount: int) -> None:
        wanted, rest = Fraction(amount), []
        for height, have in self.lots[who]:
            part = min(wanted, have)
            wanted -= part
            rest.append((height, have - part))
        self.lots[who] = [(height, have) for height, have in rest if have]

    def slash(self, ppm: int, as_of_height: int) -> None:
        for who, lots in self.lots.items():
            self.lots[who] = [(h, a if h > as_of_height else a * (PPM - ppm) / PPM) for h, a in lots]

    def pay(self, amount: int, own: int, as_of_height: int) -> None:
        old = {w: sum((a for h, a in lots if h <= as_of_height), Fraction(0)) for w, lots in self.lots.items()}
        all_old = sum(old.values(), Fraction(0))
        if all_old:
            part = Fraction(amount) * all_old / (own + all_old) * SHARE_PPM / PPM
            for who, stake in old.items():
                self.earned[who] += part * stake / all_old


class Pool:
    """One pool beside its exact image; a block is one millisecond, and one move of somebody."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.exact = dice, Exact()
        periods = {"unbonding_ms": MEMORY_MS, "evidence_age_ms": 50, "trusting_period_ms": 40}
        self.state = build_state(make_quick_genesis(max_delegated_multiple=1_000, **periods))
        self.context = Context(self.state, 0, 0, proposer=b"")
        set_share(self.context, DELEGATE, TARGET, SHARE_PPM)
        self.people = [make_address(name) for name in ACCOUNTS]
        self.paid: dict[bytes, int] = defaultdict(int)
        self.slashes = 0

    @property
    def row(self) -> DelegationPool:
        return self.state.get(DelegationPool, DELEGATE, TARGET)

    def worth(self, who: bytes) -> int:
        delegation = get_delegation(self.state, DELEGATE, TARGET, who)
        return compute_worth_uflk(self.row, delegation.shares) if delegation else 0

    def earned(self, who: bytes) -> int:
        delegation = get_delegation(self.state, DELEGATE, TARGET, who)
        return self.paid[who] + (compute_earned_uflk(self.row, delegation) if delegation else 0)

    def step(self, height: int) -> None:
        self.context = Context(self.state, height, height, proposer=b"")
        who, as_of_height = self.dice.choice(self.people), max(0, height - self.dice.choice([1, 1, 2, 9, 40]))
        act = self.dice.choice([self.join, self.join, self.leave, self.slash, self.pay, self.pay])
        before = self.row
        act(who, as_of_height)
        if act in (self.join, self.leave) and before.shares and self.row.shares:
            is_dearer = self.row.amount_uflk * before.shares >= before.amount_uflk * self.row.shares
            assert is_dearer, "who comes or goes takes nothing from those who stay"
        process_unbonding(self.context)
        for receipt in self.context.receipts:
            if receipt.kind == "income":
                self.paid[receipt.account] += receipt.amount_uflk
        self.state.clear_journal()

    def join(self, who: bytes, _: int) -> None:
        amount = self.dice.randint(10**6, 10**9)
        if amount <= get_account(self.state, who).balance_uflk:
            increase_delegation(self.context, who, self.row, amount)
            self.exact.join(who, self.context.height, amount)

    def leave(self, who: bytes, _: int) -> None:
        delegation, worth = get_delegation(self.state, DELEGATE, TARGET, who), self.worth(who)
        if delegation is None or not worth or len(delegation.unbonding) >= 8:
            return
        amount = worth if self.dice.random() < 0.2 else self.dice.randint(1, worth)
        begin_undelegation(self.context, self.row, delegation, amount)
        self.exact.leave(who, amount)
        if amount == worth:
            self.exact.lots.pop(who)

    def slash(self, _: bytes, as_of_height: int) -> None:
        if self.dice.random() < 0.1:
            ppm = self.dice.choice([100, 50_000, 100_000])
            slash_bond(self.context, DELEGATE, TARGET, ppm, reason="test", as_of_height=as_of_height)
            self.exact.slash(ppm, as_of_height)
            self.slashes += 1

    def pay(self, _: bytes, as_of_height: int) -> None:
        amount, own = self.dice.randint(1, 10**6), self.state.get(Stake, DELEGATE, TARGET).amount_uflk
        part = give_delegators_part(self.context, self.row, own, amount, as_of_height)
        increase_community_pool(self.state, amount - part)
        chain = self.state.get(Chain)
        self.state.put(replace(chain, supply_uflk=chain.supply_uflk + amount))
        self.exact.pay(amount, own, as_of_height)

    def check(self, moves: int) -> None:
        """Nobody is off by more than two uflk a move, and what all have is there to the unit."""
        for who in self.people:
            assert abs(self.worth(who) - self.exact.worth(who)) <= 2 * moves
            assert abs(self.earned(who) - self.exact.earned[who]) <= 2 * moves
        money = sum(compute_money_uflk(row) for row in self.state.rows())
        assert money == self.state.get(Chain).supply_uflk
        assert_pools(self.state)
        assert_bonds(self.state)


def test_an_index_at_its_limit_rises_no_more_and_loses_nothing() -> None:
    """One share left of those that stood for a round, and a reward of 40,000 FLK: without a limit the index would not
    fit its row, and no node could write the block. The rest of the pool's money stays, and the next pool begins anew.
    """
    pool = Pool(random.Random(0))
    who, height = pool.people[0], 10
    pool.context = Context(pool.state, 1, 1, proposer=b"")
    increase_delegation(pool.context, who, pool.row, 1)
    pool.context = Context(pool.state, height, height, proposer=b"")
    increase_delegation(pool.context, who, pool.row, 10**6)
    pool.state.put(replace(pool.row, index_nuflk=I63_MAX - 10**18))
    delegation = get_delegation(pool.state, DELEGATE, TARGET, who)
    assert delegation is not None
    pool.state.put(replace(delegation, index_nuflk=I63_MAX - 10**18))
    part = give_delegators_part(pool.context, pool.row, 1, 40_000 * 10**6, height - 1)
    assert pool.row.index_nuflk == I63_MAX
    assert decode(DelegationPool, encode(pool.row)) == pool.row
    paid = sum(receipt.amount_uflk for receipt in pool.context.receipts)
    assert paid == 10**9
    assert pool.row.rewards_uflk + paid == part
    delegation = get_delegation(pool.state, DELEGATE, TARGET, who)
    assert delegation is not None
    begin_undelegation(pool.context, pool.row, delegation, pool.worth(who))
    assert (pool.row.index_nuflk, pool.row.rewards_uflk) == (0, 0)
    increase_delegation(pool.context, who, pool.row, 10**6)
    assert pool.earned(who) == 0


def test_thousands_of_moves_agree_with_exact_fractions() -> None:
    """Joins, leaves, slashes and incomes as of the last block or of some blocks ago, by eight people in one pool."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pool = Pool(random.Random(seed))
    for height in range(1, MOVES + 1):
        pool.step(height)
        if height % 100 == 0:
            pool.check(height)
    assert pool.slashes > 10
    assert max(pool.earned(who) for who in pool.people) > 10**6
