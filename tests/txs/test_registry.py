"""What holds for every transaction type, whatever it does. A new type is covered once `EXAMPLES` has a body for it."""

import contextlib
import inspect
import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from flockchain.codec import Canonical, decode, encode
from flockchain.errors import Refused
from flockchain.execution.block import check_block, check_tx, preview_tx
from flockchain.execution.genesis import load_state
from flockchain.genesis import sign_possession
from flockchain.txs import (
    TYPES,
    approve_change,
    attest_aggregate,
    claim_rewards,
    commit_final,
    confirm_fetched,
    create_task,
    edit_validator,
    fund_task,
    get_type,
    judge_final,
    leave_task,
    propose_change,
    reveal_final,
    slash,
    stake,
    submit_adapter,
    transfer,
    unjail,
    unstake,
    vote,
)
from flockchain.types.chain import PREVOTE, VoteBody
from flockchain.types.change import Setting
from flockchain.types.final import FinalTerms
from flockchain.types.task import AdapterFigures, Coefficient
from flockchain.types.tx import OK, SignedTx
from tests.execution.stories import make_quick_genesis, make_spec
from tests.support.ledger import GENESIS_TIME_MS, Ledger, make_address, make_beacon_chain, make_key

ROOT = b"r" * 32
VAL0 = make_address("val0")


def example_evidence() -> bytes:
    from flockchain.execution.evidence import double_vote

    ledger = Ledger()
    return encode(
        double_vote.make_evidence(*(ledger.sign_vote("val0", VoteBody(PREVOTE, 1, 0, b)) for b in (ROOT, b"")))
    )


EXAMPLES: dict[str, Canonical] = {
    "approve-change": approve_change.Body(VAL0, 1),
    "attest-aggregate": attest_aggregate.Body(1, 1, ROOT, 9, (Coefficient(ROOT, 5),), (), (), ()),
    "claim-rewards": claim_rewards.Body(VAL0),
    "commit-final": commit_final.Body(FinalTerms(ROOT, 9, 5, 0, 0, 0)),
    "confirm-fetched": confirm_fetched.Body(1, 1, ()),
    "create-task": create_task.Body(make_spec(), 10**9),
    "edit-validator": edit_validator.Body(VAL0, "name", b""),
    "fund-task": fund_task.Body(1, 5),
    "judge-final": judge_final.Body(1, AdapterFigures(ROOT, "abstain", "", (), ())),
    "leave-task": leave_task.Body(1),
    "propose-change": propose_change.Body(
        validator=VAL0, settings=(Setting("fees.min_fee_uflk", 200),), deadline_ms=GENESIS_TIME_MS + 600_000
    ),
    "reveal-final": reveal_final.Body(1),
    "slash": slash.Body("double-vote", example_evidence()),
    "stake": stake.Body("task:1", 5, role="trainer"),
    "submit-adapter": submit_adapter.Body(1, 1, ROOT, 9, b"", 1, ""),
    "transfer": transfer.Body(make_address("bob"), 5, ""),
    "unjail": unjail.Body(VAL0),
    "unstake": unstake.Body("task:1", 5),
    "vote": vote.Body(1, 1, seal=ROOT),
}
"""One body per type that passes its stateless checks and that a fresh chain refuses, for alice without money."""

KINDS = sorted(TYPES)


def make_poor_ledger() -> Ledger:
    """Alice can pay a fee and nothing more."""
    ledger = Ledger(make_quick_genesis())
    rest = ledger.balance("alice") - 100_000
    ledger.must("alice", transfer.Body(make_address("dave"), rest, ""), fee_uflk=10_000)
    return ledger


def test_every_type_has_an_example() -> None:
    assert sorted(EXAMPLES) == KINDS
    assert {"stake", "submit-adapter", "vote", "slash"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: str) -> None:
    body = EXAMPLES[kind]
    assert type(body) is TYPES[kind].body
    data = encode(body)
    assert decode(TYPES[kind].body, data) == body
    signed = decode(SignedTx, Ledger().tx("alice", body))
    assert get_type(kind).decode_body(signed.tx) == body


@pytest.mark.parametrize("kind", KINDS)
def test_extra_or_missing_bytes_are_refused(kind: str) -> None:
    data = encode(EXAMPLES[kind])
    for wrong in (data[:-1], data + b"\x00", b""):
        with pytest.raises(Refused):
            decode(TYPES[kind].body, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_unsigned_is_refused(kind: str) -> None:
    ledger = Ledger()
    signed = decode(SignedTx, ledger.tx("alice", EXAMPLES[kind]))
    data = encode(replace(signed, signature=bytes(64)))
    with pytest.raises(Refused, match="the signature is not by"):
        check_block(ledger.state, ledger.build(data))


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_for_another_purpose_is_refused(kind: str) -> None:
    ledger = Ledger()
    signed = decode(SignedTx, ledger.tx("alice", EXAMPLES[kind]))
    data = encode(replace(signed, signature=bytes(make_key("alice").sign(encode(signed.tx)).signature)))
    with pytest.raises(Refused, match="the signature is not by"):
        check_tx(ledger.state, data, ledger.chain.time_ms)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_nonce_changes_nothing(kind: str) -> None:
    ledger = Ledger()
    before = ledger.account("alice")
    result = ledger.send("alice", EXAMPLES[kind], nonce=3)
    assert (result.code, result.fee_uflk) == ("nonce-ahead", 0)
    assert ledger.account("alice") == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_one_leaves_the_state_root_of_its_fee_alone(kind: str) -> None:
    """The state after it is the state after paying the same fee for a transfer that is refused."""
    ledger, control = make_poor_ledger(), make_poor_ledger()
    fee = 50_000
    if kind == "slash":  # proves nothing here: its votes are of another network
        assert preview_tx(ledger.state, ledger.tx("alice", EXAMPLES[kind], nonce=1), ledger.chain.time_ms).code != OK
    result = ledger.send("alice", EXAMPLES[kind] if kind != "transfer" else big_transfer(), fee_uflk=fee)
    assert result.code != OK
    assert result.message
    assert result.fee_uflk == fee
    refused = control.send("alice", big_transfer(), fee_uflk=fee)
    assert refused.code == "insufficient-balance"
    assert rows_but_chain(ledger) == rows_but_chain(control)


@pytest.mark.parametrize("kind", KINDS)
def test_a_preview_leaves_the_state_root(kind: str) -> None:
    ledger = Ledger()
    root = ledger.state.root
    preview_tx(ledger.state, ledger.tx("alice", EXAMPLES[kind]), ledger.chain.time_ms)
    assert load_state(ledger.state.rows())[0].root == root


@pytest.mark.parametrize("kind", KINDS)
def test_documented(kind: str) -> None:
    module = TYPES[kind].module
    assert (module.__doc__ or "").startswith(f"`{kind}`"), "the first line names the kind and says what it does"
    assert list(inspect.signature(module.check).parameters) == ["body", "tx"]
    assert list(inspect.signature(module.apply).parameters) == ["context", "tx", "body"]


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_never_crash(kind: str) -> None:
    """Whatever the bytes, the answer is a result or a refusal."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    ledger = Ledger()
    signed = decode(SignedTx, ledger.tx("alice", EXAMPLES[kind]))
    for body in flipped(signed.tx.body, dice):
        data = ledger.sign_tx("alice", replace(signed.tx, body=body))
        with contextlib.suppress(Refused):
            assert preview_tx(ledger.state, data, ledger.chain.time_ms).kind == kind


def flipped(data: bytes, dice: random.Random) -> Iterator[bytes]:
    for _ in range(60):
        changed = bytearray(data)
        changed[dice.randrange(len(changed))] = dice.randrange(256)
        yield bytes(changed)


def test_an_unknown_kind_names_the_known_ones() -> None:
    ledger = Ledger()
    data = ledger.tx("alice", EXAMPLES["transfer"], kind="mint")
    with pytest.raises(Refused, match=r"no transaction type 'mint'; there are: approve-change, attest-aggregate"):
        check_tx(ledger.state, data, ledger.chain.time_ms)


def test_a_body_of_another_kind_is_refused() -> None:
    ledger = Ledger()
    data = ledger.tx("alice", EXAMPLES["transfer"], kind="create-task")
    with pytest.raises(Refused, match="Body"):
        check_tx(ledger.state, data, ledger.chain.time_ms)


def test_a_first_validator_bond_round_trips() -> None:
    body = stake.Body(
        "validator",
        5,
        public_key=bytes(make_key("val9").verify_key),
        possession=sign_possession(make_key("val9"), "flock-test", make_address("alice")),
        beacon_head=make_beacon_chain("val9").head,
    )
    assert decode(stake.Body, encode(body)) == body


def big_transfer() -> transfer.Body:
    return transfer.Body(make_address("bob"), 10**15, "")


def rows_but_chain(ledger: Ledger) -> list[object]:
    """All rows but those that name the block itself."""
    return [row for row in ledger.state.rows() if type(row).__name__ != "Chain"]
