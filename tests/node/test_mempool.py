"""The mempool's rules: order by nonce and fee, a lane for due transactions, limits everywhere."""

from random import Random

import pytest

from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.execution.block import CheckedTx
from flockchain.node.mempool import MAX_DUE_PER_ACCOUNT, Limits, Mempool

SIZE = 200
FAR_MS = 10_000


def make(
    sender: str,
    nonce: int,
    fee: int = 300,
    *,
    due_ms: int = 0,
    round: int | None = None,
    size: int = SIZE,
    expires_ms: int = FAR_MS,
) -> tuple[CheckedTx, bytes]:
    """With `due_ms` a due transaction, of that training round of task 1, or (without) a report of an offence."""
    data = f"{sender} {nonce} {fee} {due_ms} {round}".encode().ljust(size)
    checked = CheckedTx(
        hash=sha256(data),
        sender=sender.encode(),
        nonce=nonce,
        kind="transfer",
        fee_uflk=0 if due_ms else fee,
        is_due=bool(due_ms),
        duty=None if round is None else (1, round),
        deadline_ms=due_ms or expires_ms,
        size_bytes=size,
        expires_ms=expires_ms,
    )
    return checked, data


def make_pool(max_txs: int = 100, max_bytes: int = 100 * SIZE, per_account: int = 64) -> Mempool:
    return Mempool(Limits(max_txs, max_bytes, per_account))


def from_zero(_: bytes) -> int:
    return 0


def names(batch: list[bytes]) -> list[str]:
    return [" ".join(data.decode().split()[:2]) for data in batch]


def test_a_sender_goes_in_nonce_order_however_they_arrived() -> None:
    pool = make_pool()
    for nonce in (2, 0, 1):
        pool.add(*make("a", nonce, fee=300 + nonce))
    assert names(pool.reap(10**6, 100, from_zero)) == ["a 0", "a 1", "a 2"]


def test_nothing_is_taken_behind_a_gap() -> None:
    pool = make_pool()
    pool.add(*make("a", 2))
    assert not pool.has_ready(from_zero)
    pool.add(*make("a", 0))
    assert pool.has_ready(from_zero)
    assert names(pool.reap(10**6, 100, from_zero)) == ["a 0"]


def test_higher_fees_go_first_and_equal_fees_by_arrival() -> None:
    pool = make_pool()
    for sender, fee in (("a", 300), ("b", 900), ("c", 300), ("d", 600)):
        pool.add(*make(sender, 0, fee))
    assert names(pool.reap(10**6, 100, from_zero)) == ["b 0", "d 0", "a 0", "c 0"]
    assert names(pool.reap(2 * SIZE, 100, from_zero)) == ["b 0", "d 0"]
    assert names(pool.reap(10**6, 3, from_zero)) == ["b 0", "d 0", "a 0"]


def test_due_transactions_go_first_by_deadline_in_half_of_the_block() -> None:
    pool = make_pool()
    pool.add(*make("rich", 0, fee=10**6))
    for i in range(6):
        pool.add(*make(f"m{i}", 0, due_ms=9_000 - i))
    assert names(pool.reap(4 * SIZE, 100, from_zero)) == ["m5 0", "m4 0", "rich 0", "m0 0"]


def test_a_due_transaction_takes_the_ones_before_it_along() -> None:
    pool = make_pool()
    pool.add(*make("rich", 0, fee=10**6))
    pool.add(*make("m", 0, fee=1))
    pool.add(*make("m", 1, due_ms=5_000))
    assert names(pool.reap(10**6, 2, from_zero)) == ["m 0", "m 1"]


def test_the_lowest_fee_is_evicted_for_a_higher_one_only() -> None:
    pool = make_pool(max_txs=3)
    for sender, fee in (("a", 300), ("b", 200), ("c", 400)):
        pool.add(*make(sender, 0, fee))
    with pytest.raises(Refused, match="pay at least as much"):
        pool.add(*make("d", 0, fee=200))
    pool.add(*make("e", 0, fee=500))
    assert names(pool.reap(10**6, 100, from_zero)) == ["e 0", "c 0", "a 0"]


def test_a_full_pool_still_takes_what_is_due() -> None:
    pool = make_pool(max_txs=2)
    pool.add(*make("a", 0, fee=10**9))
    pool.add(*make("b", 0, fee=10**9))
    pool.add(*make("m", 0, due_ms=5_000))
    assert pool.due_txs == 1
    with pytest.raises(Refused, match="the mempool holds 1"):
        pool.add(*make("n", 0, due_ms=5_000))


def test_the_latest_deadline_leaves_a_full_lane_for_an_earlier_one() -> None:
    pool = make_pool(max_txs=4)
    pool.add(*make("late", 0, due_ms=9_000))
    pool.add(*make("soon", 0, due_ms=5_000))
    with pytest.raises(Refused, match="due no later"):
        pool.add(*make("later", 0, due_ms=9_500))
    pool.add(*make("now", 0, due_ms=4_000))
    assert names(list(pool)) == ["soon 0", "now 0"]
    assert pool.due_txs == 2


def test_a_duty_waits_once() -> None:
    pool = make_pool()
    pool.add(*make("m", 3, due_ms=5_000, round=7))
    with pytest.raises(Refused, match="with nonce 3 waits already and is due") as refusal:
        pool.add(*make("m", 4, due_ms=5_000, round=7))
    assert refusal.value.code == "nonce-taken"
    pool.add(*make("m", 4, due_ms=6_000, round=8))
    assert pool.due_txs == 2


def test_a_duty_behind_a_nonce_that_may_never_come_makes_way() -> None:
    pool = make_pool()
    pool.add(*make("m", 3, due_ms=5_000, round=7))
    pool.add(*make("m", 0, due_ms=5_000, round=7))
    assert names(list(pool)) == ["m 0"]


def test_reports_of_offences_are_bounded_by_account() -> None:
    pool = make_pool()
    for nonce in range(MAX_DUE_PER_ACCOUNT):
        pool.add(*make("m", nonce, due_ms=9_000))
    with pytest.raises(Refused, match="16 due transactions of this account wait, at most 16 may"):
        pool.add(*make("m", MAX_DUE_PER_ACCOUNT, due_ms=9_000))
    pool.add(*make("m", MAX_DUE_PER_ACCOUNT))  # those that pay have a limit of their own


def test_bytes_are_bounded_as_counts_are() -> None:
    pool = make_pool(max_bytes=3 * SIZE)
    for sender in "abc":
        pool.add(*make(sender, 0, fee=100))
    pool.add(*make("big", 0, fee=1_000, size=2 * SIZE))
    assert len(pool) == 2
    assert pool.size_bytes == 3 * SIZE


def test_one_account_holds_at_most_its_share() -> None:
    pool = make_pool(per_account=2)
    pool.add(*make("a", 0))
    pool.add(*make("a", 1))
    with pytest.raises(Refused, match="at most 2"):
        pool.add(*make("a", 2))


def test_a_nonce_is_replaced_by_a_tenth_more() -> None:
    pool = make_pool()
    pool.add(*make("a", 0, fee=1_000))
    with pytest.raises(Refused, match="replacing it takes 1100 uflk"):
        pool.add(*make("a", 0, fee=1_099))
    pool.add(*make("a", 0, fee=1_100))
    assert len(pool) == 1
    with pytest.raises(Refused, match="already waits"):
        pool.add(*make("a", 0, fee=1_100))


def test_a_block_clears_what_it_holds_what_it_passed_and_what_expired() -> None:
    pool = make_pool()
    included = make("a", 0)
    for entry in (included, make("a", 1), make("b", 0, expires_ms=500), make("c", 0)):
        pool.add(*entry)
    pool.update([included[0].hash], lambda sender: {b"a": 2}.get(sender, 0), now_ms=501)
    assert names(list(pool)) == ["c 0"]
    assert pool.is_seen(included[0].hash)


def test_what_is_due_no_longer_pays_or_goes() -> None:
    pool = make_pool()
    pool.add(*make("m", 0, due_ms=5_000))
    pool.add(*make("n", 0, due_ms=5_000))

    def check(data: bytes) -> CheckedTx:
        if data.startswith(b"n"):
            raise Refused("below-min-fee", "fee of 0 uflk")
        return make("m", 0, fee=700)[0]

    pool.recheck_due(check)
    assert pool.due_txs == 0
    assert names(list(pool)) == ["m 0"]


def test_sums_agree_with_contents_over_random_histories() -> None:
    seed = 20_261
    rng = Random(seed)
    pool = make_pool(max_txs=30, max_bytes=25 * SIZE, per_account=8)
    nonces: dict[bytes, int] = {}
    for _ in range(3_000):
        sender = f"s{rng.randint(0, 12)}"
        nonce = nonces.get(sender.encode(), 0) + rng.randint(0, 9)
        due_ms = rng.choice((0, 0, 0, 5_000))
        size = rng.randint(50, 400)
        try:
            pool.add(*make(sender, nonce, rng.randint(1, 999), due_ms=due_ms, size=size))
        except Refused:
            pass
        if rng.random() < 0.1:
            picked = pool.reap(rng.randint(100, 3_000), rng.randint(1, 20), lambda a: nonces.get(a, 0))
            for data in picked:
                name, nonce_text = data.decode().split()[:2]
                assert int(nonce_text) == nonces.get(name.encode(), 0), f"gap in a block, seed {seed}"
                nonces[name.encode()] = int(nonce_text) + 1
            pool.update([sha256(data) for data in picked], lambda a: nonces.get(a, 0), now_ms=0)
        held = list(pool)
        assert pool.size_bytes == sum(len(data) for data in held), f"seed {seed}"
        assert len(pool) == len(held) <= 45, f"seed {seed}"
        assert pool.size_bytes <= 25 * SIZE * 3 // 2, f"seed {seed}"
