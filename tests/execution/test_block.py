"""Blocks follow the state by every rule, and leave what each transaction did."""

from dataclasses import replace as replace_field
from types import ModuleType

import pytest
from msgspec.structs import replace

from flockchain.codec import decode, encode
from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.execution.balances import increase_balance
from flockchain.execution.block import (
    check_block,
    check_tx,
    compute_next_due_ms,
    execute_block,
    is_block_due,
    preview_tx,
)
from flockchain.execution.context import Context
from flockchain.execution.genesis import load_state
from flockchain.execution.transactions import parse_tx, process_tx
from flockchain.txs import stake, transfer
from flockchain.types.chain import EMPTY_COMMIT, Block
from flockchain.types.rows import Chain, row_key
from flockchain.types.tx import Tx
from tests.support.ledger import Ledger, make_address, make_genesis, make_key

BOB = make_address("bob")


def test_a_transfer_moves_money_and_pays_its_fee() -> None:
    ledger = Ledger()
    before = ledger.balance("alice"), ledger.balance("bob")
    result = ledger.send("alice", transfer.Body(BOB, 5, "tea"), fee_uflk=1_000)
    assert (result.code, result.fee_uflk) == ("ok", 1_000)
    assert (ledger.balance("alice"), ledger.balance("bob")) == (before[0] - 1_005, before[1] + 5)
    assert ledger.account("alice").nonce == 1
    assert ledger.chain.fee_pool_uflk == 1_000


def test_a_refused_transfer_keeps_fee_and_nonce_and_nothing_else() -> None:
    ledger = Ledger()
    before = ledger.balance("alice")
    result = ledger.send("alice", transfer.Body(BOB, before, ""), fee_uflk=1_000)
    assert result.code == "insufficient-balance"
    assert result.message == f"transfer of {before} uflk exceeds balance of {before - 1_000} uflk"
    assert ledger.balance("alice") == before - 1_000
    assert ledger.account("alice").nonce == 1


def test_writes_and_receipts_of_a_refused_transaction_are_undone() -> None:
    """No type of ours writes before it refuses; should one, the savepoint holds."""

    def apply(context: Context, tx: Tx, body: object) -> None:
        increase_balance(context.state, BOB, 1_000)
        context.add_receipt("reward", BOB, 1_000, "too early")
        raise Refused("late-refusal", "after a write")

    ledger = Ledger()
    before, rows = ledger.balance("bob"), len(ledger.state)
    parsed = parse_tx(ledger.tx("alice", transfer.Body(BOB, 5, "")), ledger.chain)
    module = ModuleType("rude")
    module.apply = apply  # type: ignore[attr-defined]
    context = Context(ledger.state, 1, ledger.chain.time_ms + 1, proposer=b"")
    result = process_tx(context, replace_field(parsed, type=replace_field(parsed.type, module=module)))
    assert (result.code, result.message) == ("late-refusal", "after a write")
    assert context.fees_uflk == result.fee_uflk > 0
    assert (ledger.balance("bob"), len(ledger.state), context.receipts) == (before, rows, [])


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        ({"nonce": 7}, "nonce-ahead", "nonce 7 is ahead: the next of this account is 0"),
        ({"fee_uflk": 5}, "fee-too-low", "fee of 5 uflk is below the least fee of"),
        ({"expires_ms": 1_700_000_000_999}, "expired", "transaction expired at 1700000000999 ms, the block's time is"),
        ({"expires_ms": 1_700_009_000_000}, "expiry-too-far", "at most 3600000 ms after the block's time"),
        ({"fee_uflk": 10**15}, "insufficient-balance", "fee of 1000000000000000 uflk exceeds balance of"),
    ],
)
def test_what_is_refused_before_the_fee_changes_nothing(options: dict[str, int], code: str, sentence: str) -> None:
    ledger = Ledger()
    before = ledger.account("alice")
    result = ledger.send("alice", transfer.Body(BOB, 5, ""), **options)
    assert result.code == code
    assert sentence in result.message
    assert result.fee_uflk == 0
    assert ledger.account("alice") == before


def test_a_spent_nonce_is_refused() -> None:
    ledger = Ledger()
    data = ledger.tx("alice", transfer.Body(BOB, 5, ""))
    assert ledger.produce(data).results[0].code == "ok"
    result = ledger.produce(data).results[0]
    assert (result.code, result.message) == ("nonce-spent", "nonce 0 is spent: the next of this account is 1")


def test_a_foreign_chain_is_named_with_ours() -> None:
    ledger = Ledger()
    data = ledger.tx("alice", transfer.Body(BOB, 5, ""), chain_id="elsewhere")
    with pytest.raises(Refused, match="transaction is for chain 'elsewhere', this is 'flock-test'"):
        check_tx(ledger.state, data, ledger.chain.time_ms)


def test_a_key_that_is_not_the_senders_is_refused() -> None:
    ledger = Ledger()
    data = ledger.tx("alice", transfer.Body(BOB, 5, ""), key=make_key("mallory"))
    with pytest.raises(Refused, match="is not that of the sender"):
        check_block(ledger.state, ledger.build(data))


def test_a_block_with_a_broken_signature_is_refused() -> None:
    ledger = Ledger()
    data = bytearray(ledger.tx("alice", transfer.Body(BOB, 5, "")))
    data[-1] ^= 1
    with pytest.raises(Refused, match="the signature is not by flk1"):
        check_block(ledger.state, ledger.build(bytes(data)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"height": 9}, "height 9 does not follow 1"),
        ({"time_ms": 5}, "time 5 ms is not after"),
        ({"chain_id": "x"}, "block is for chain 'x'"),
        ({"protocol_version": 9}, "protocol version 9"),
        ({"proposer": bytes(20)}, "is no validator of height 2"),
        ({"beacon_preimage": bytes(32)}, "is not the next link"),
        *(
            ({name: bytes(32)}, f"{name} is 00")
            for name in (
                *("last_block_id", "last_commit_hash", "txs_root", "prev_results_root", "prev_state_root"),
                *("validators_hash", "next_validators_hash", "params_hash"),
            )
        ),
    ],
)
def test_each_field_of_a_header_is_checked(change: dict[str, object], sentence: str) -> None:
    ledger = Ledger()
    ledger.produce()
    good = ledger.build()
    check_block(ledger.state, good)
    with pytest.raises(Refused, match=sentence):
        check_block(ledger.state, replace(good, header=replace(good.header, **change)))


def test_a_commit_needs_more_than_two_thirds() -> None:
    ledger = Ledger()
    ledger.produce(absent=["val0", "val1"])
    with pytest.raises(Refused, match="power 20000000000 of 40000000000 signed the commit, more than 2/3 is needed"):
        check_block(ledger.state, ledger.build())


def test_a_known_commit_vouches_for_its_own_signatures_alone() -> None:
    ledger = Ledger()
    ledger.produce()
    good = ledger.commits[-1]
    first = good.signatures[0]
    forged = replace(good, signatures=(replace(first, signature=bytes(64)), *good.signatures[1:]))
    ledger.commits[-1] = forged
    block = ledger.build()
    with pytest.raises(Refused, match="has a wrong signature"):
        check_block(ledger.state, block, known_commit=good)
    with pytest.raises(Refused, match="has a wrong signature"):
        check_block(ledger.state, block, known_commit=replace(forged, round=1))
    check_block(ledger.state, block, known_commit=forged)  # whoever calls answers for what is known


def test_the_first_block_carries_the_empty_commit() -> None:
    ledger = Ledger()
    ledger.produce()
    stolen = ledger.commits[-1]
    fresh = Ledger()
    fresh.commits = [stolen]
    with pytest.raises(Refused, match="the first block carries the empty commit"):
        check_block(fresh.state, fresh.build())
    assert fresh.genesis_hash == ledger.genesis_hash
    assert stolen != EMPTY_COMMIT


def test_equal_blocks_give_equal_roots_and_rows_restore_to_them() -> None:
    first, second = Ledger(), Ledger()
    for height in range(5):
        block = first.build(first.tx("alice", transfer.Body(BOB, height + 1, "")))
        assert first.decide(block).state_root == second.decide(block).state_root
    state, tree = load_state(first.state.rows())
    assert state.root == tree.root == first.tree.root == first.state.root


def test_the_write_set_holds_every_change() -> None:
    ledger = Ledger()
    replica, tree = load_state(ledger.state.rows())
    rows = {row_key(row): row for row in replica.rows()}
    for _ in range(4):
        outcome = ledger.produce(ledger.tx("alice", transfer.Body(make_address("nobody"), 5, "")))
        for key, row in outcome.write_set.items():
            if row is None:
                del rows[key]
            else:
                rows[key] = row
        assert load_state(rows.values())[0].root == outcome.state_root
    assert tree.root != ledger.tree.root


def test_a_preview_says_what_the_block_would_and_changes_nothing() -> None:
    ledger = Ledger()
    root, rows = ledger.state.root, list(ledger.state.rows())
    data = ledger.tx("alice", stake.Body("task:1", 5, role="trainer"))
    result = preview_tx(ledger.state, data, ledger.chain.time_ms)
    assert (result.code, result.message) == ("not-found", "there is no task 1")
    assert list(ledger.state.rows()) == rows
    assert ledger.state.savepoint() == 0
    assert load_state(ledger.state.rows())[0].root == root


def test_the_mempool_learns_what_it_needs() -> None:
    ledger = Ledger()
    data = ledger.tx("alice", transfer.Body(BOB, 5, ""), nonce=3, fee_uflk=2_000)
    checked = check_tx(ledger.state, data, ledger.chain.time_ms)
    assert (checked.sender, checked.nonce, checked.kind) == (make_address("alice"), 3, "transfer")
    assert (checked.fee_uflk, checked.is_due, checked.size_bytes) == (2_000, False, len(data))
    with pytest.raises(Refused, match="nonce 65 is more than 64 ahead of 0"):
        check_tx(ledger.state, ledger.tx("alice", transfer.Body(BOB, 5, ""), nonce=65), ledger.chain.time_ms)


def test_a_verified_transaction_is_not_verified_again() -> None:
    ledger = Ledger()
    data = bytearray(ledger.tx("alice", transfer.Body(BOB, 5, "")))
    data[-1] ^= 1
    block = ledger.build(bytes(data))
    check_block(ledger.state, block, verified={sha256(bytes(data))})


def test_blocks_are_limited() -> None:
    params = make_genesis().params
    params = replace(params, consensus=replace(params.consensus, max_block_txs=1))
    ledger = Ledger(make_genesis(params=params))
    txs = [ledger.tx("alice", transfer.Body(BOB, 5, "")) for _ in range(2)]
    with pytest.raises(Refused, match="2 transactions exceed max_block_txs 1"):
        check_block(ledger.state, ledger.build(*txs))


def test_an_empty_block_is_due_after_work_and_when_idle() -> None:
    ledger = Ledger()
    now = ledger.chain.time_ms
    assert compute_next_due_ms(ledger.state) is None
    assert not is_block_due(ledger.state, now + 1, last_block_had_work=False)
    assert is_block_due(ledger.state, now + 1, last_block_had_work=True)
    assert is_block_due(ledger.state, now + 10_000, last_block_had_work=False)
    assert ledger.produce(ledger.tx("alice", transfer.Body(BOB, 5, ""))).had_work
    assert not ledger.produce().had_work


def test_a_block_is_canonical_and_executes_once() -> None:
    ledger = Ledger()
    block = ledger.build(ledger.tx("alice", transfer.Body(BOB, 5, "")))
    assert decode(Block, encode(block)) == block
    ledger.decide(block)
    with pytest.raises(AssertionError):
        execute_block(ledger.state, ledger.tree, block)
    assert ledger.state.get(Chain).height == 1
