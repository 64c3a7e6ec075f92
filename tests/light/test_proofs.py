"""Rows of the state, and their absence, under a verified header; and everything that does not prove them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from flockchain.codec import decode, encode
from flockchain.crypto import sha256
from flockchain.errors import Malformed, Refused
from flockchain.execution.staking import make_validator_target
from flockchain.light.proofs import check_row, read_row
from flockchain.light.refusals import NotVerified
from flockchain.state_tree import MAX_DEPTH
from flockchain.txs import transfer
from flockchain.types.light import ProvenRow
from flockchain.types.rows import Account, Chain, Stake, Task, TrainingRound, ValidatorRow, compute_key
from tests.execution.stories import enroll, make_quick_genesis, wait_for_phase
from tests.light.chain import Forger, LightChain
from tests.light.node import ServingNode
from tests.support.ledger import Ledger, make_address

ALICE, BOB, NOBODY = make_address("alice"), make_address("bob"), make_address("nobody at all")
VAL0 = make_address("val0")


@pytest.fixture(scope="module")
def chain() -> LightChain:
    chain = LightChain()
    chain.produce(chain.ledger.tx("alice", transfer.Body(BOB, 5, "")))
    chain.produce()
    return chain


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (Account, (ALICE,)),
        (ValidatorRow, (VAL0,)),
        (Stake, (make_address("owner0"), make_validator_target(VAL0))),
        (Chain, ()),
    ],
)
def test_a_row_is_proven_as_it_was_before_the_newest_block(chain: LightChain, kind: Any, key: tuple[Any, ...]) -> None:
    row, header = read_row(chain.client(), chain, kind, *key, now_ms=chain.now_ms)
    assert isinstance(row, kind)
    assert header.height == chain.height
    if kind is Chain:
        assert row.height == chain.height - 1


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (Account, (NOBODY,)),
        (ValidatorRow, (ALICE,)),
        (Stake, (ALICE, "task:1")),
        (Task, (1,)),
        (TrainingRound, (1, 1)),
    ],
)
def test_what_is_not_there_is_proven_not_to_be(chain: LightChain, kind: Any, key: tuple[Any, ...]) -> None:
    row, _ = read_row(chain.client(), chain, kind, *key, now_ms=chain.now_ms)
    assert row is None


def test_tasks_and_rounds_are_proven() -> None:
    chain = LightChain(Ledger(make_quick_genesis()))
    enroll(chain.ledger)
    wait_for_phase(chain.ledger, "train")
    for _ in range(2):
        chain.produce()
    block = chain.blocks[chain.height]
    task = check_row(block.header, chain.proven_row(Task, 1), Task, 1)
    training = check_row(block.header, chain.proven_row(TrainingRound, 1, 1), TrainingRound, 1, 1)
    assert task is not None
    assert training is not None
    assert (task.creator, training.phase) == (ALICE, "train")


def enrich(proven: ProvenRow) -> bytes:
    assert proven.value is not None
    account = decode(Account, proven.value)
    return encode(replace(account, balance_uflk=account.balance_uflk + 1))


FORGED_PROOFS: dict[str, Callable[[LightChain, ProvenRow], ProvenRow]] = {
    "a larger balance": lambda c, p: replace(p, value=enrich(p)),
    "absence of what is there": lambda c, p: replace(p, value=None),
    "absence by the leaf of another key": lambda c, p: replace(
        p, value=None, proof=c.proven_row(Account, NOBODY).proof
    ),
    "absence by its own leaf": lambda c, p: replace(
        p,
        value=None,
        proof=replace(p.proof, other_key_hash=sha256(p.key), other_value_hash=sha256(p.value or b"")),
    ),
    "the proof of another account": lambda c, p: replace(p, proof=c.proven_row(Account, BOB).proof),
    "another account with its own proof": lambda c, p: c.proven_row(Account, BOB),
    "a row of another kind": lambda c, p: c.proven_row(ValidatorRow, VAL0),
    "one sibling changed": lambda c, p: replace(
        p, proof=replace(p.proof, siblings=(sha256(b"x"), *p.proof.siblings[1:]))
    ),
    "one sibling left out": lambda c, p: replace(p, proof=replace(p.proof, siblings=p.proof.siblings[1:])),
    "one sibling too many": lambda c, p: replace(p, proof=replace(p.proof, siblings=(bytes(32), *p.proof.siblings))),
    "the siblings turned round": lambda c, p: replace(p, proof=replace(p.proof, siblings=p.proof.siblings[::-1])),
    "a leaf beside an inclusion": lambda c, p: replace(
        p, proof=replace(p.proof, other_key_hash=sha256(b"k"), other_value_hash=sha256(b"v"))
    ),
    "the state of an older header": lambda c, p: replace(p, header=c.blocks[1].header),
    "a header made for the proof": lambda c, p: replace(
        p, value=enrich(p), header=replace(p.header, prev_state_root=sha256(b"mine"))
    ),
}


@pytest.mark.parametrize("story", FORGED_PROOFS)
def test_a_forged_proof_is_refused(chain: LightChain, story: str) -> None:
    honest = chain.proven_row(Account, ALICE)

    class Source:
        def proven_row(self, kind: Any, *key: Any) -> ProvenRow:
            return FORGED_PROOFS[story](chain, honest)

    with pytest.raises(NotVerified) as refusal:
        read_row(chain.client(), Source(), Account, ALICE, now_ms=chain.now_ms)
    assert refusal.value.code == "bad-proof", refusal.value.message


def test_the_absence_of_nobody_cannot_be_shown_as_an_account(chain: LightChain) -> None:
    absence = chain.proven_row(Account, NOBODY)
    header = chain.blocks[chain.height].header
    with pytest.raises(NotVerified, match="the proof of a row"):
        check_row(header, replace(absence, value=encode(Account(NOBODY, 1_000_000, 0))), Account, NOBODY)


def test_a_header_signed_by_all_with_another_state_root_is_a_fork_not_a_proof(chain: LightChain) -> None:
    """The proof stands on a header that a decided block of the same height contradicts."""
    honest = chain.proven_row(Account, ALICE)
    forger = Forger(chain.ledger.genesis_hash, ("val0", "val1", "val2", "val3"))
    block = chain.blocks[chain.height]
    forged = forger.sign(replace(block.header, prev_state_root=sha256(b"mine")), block.validators)

    class Source:
        def proven_row(self, kind: Any, *key: Any) -> ProvenRow:
            return replace(honest, header=forged.header, commit=forged.commit)

    with pytest.raises(NotVerified, match="stands on another block 2 than the verified one"):
        read_row(chain.client(), Source(), Account, ALICE, now_ms=chain.now_ms)


def test_an_endless_proof_is_not_even_decoded(chain: LightChain) -> None:
    honest = chain.proven_row(Account, ALICE)
    endless = replace(honest, proof=replace(honest.proof, siblings=(bytes(32),) * (MAX_DEPTH + 1)))
    with pytest.raises(Malformed):
        decode(ProvenRow, encode(endless))


# The node's side


@pytest.fixture
def node(tmp_path: Path) -> Any:
    chain = LightChain()
    chain.produce(chain.ledger.tx("alice", transfer.Body(BOB, 5, "")))
    node = ServingNode(tmp_path, chain)
    yield node
    node.close()


def test_a_node_proves_rows_that_its_newest_block_changed(node: ServingNode) -> None:
    """Block 1 pays Bob: its header proves his account before that, the header of block 2 the one after it."""
    header = node.ledger.last_block.header  # type: ignore[union-attr]
    before = check_row(header, node.ledger.prove(compute_key(Account, BOB)), Account, BOB)
    node._chain.produce()
    node.follow()
    header = node.ledger.last_block.header  # type: ignore[union-attr]
    after = check_row(header, node.ledger.prove(compute_key(Account, BOB)), Account, BOB)
    assert before is not None
    assert after is not None
    assert after.balance_uflk == before.balance_uflk + 5


def test_every_row_of_the_state_is_proven_after_every_block(tmp_path: Path) -> None:
    chain = LightChain(Ledger(make_quick_genesis()))
    enroll(chain.ledger)
    node = ServingNode(tmp_path, chain)
    for _ in range(12):
        rows = dict(node.ledger.state.items())
        chain.produce()
        node.follow()
        for key, row in rows.items():
            assert node.ledger.prove(key).value == encode(row)
        for key in set(dict(node.ledger.state.items())) - set(rows):
            assert node.ledger.prove(key).value is None, "the newest block made it"
    node.close()


def test_a_restarted_node_proves_again_after_a_block(tmp_path: Path) -> None:
    chain = LightChain()
    chain.run(3)
    ServingNode(tmp_path, chain).close()
    node = ServingNode(tmp_path, chain)
    with pytest.raises(Refused, match="can prove after the next block"):
        node.ledger.prove(compute_key(Account, ALICE))
    chain.produce()
    node.follow()
    assert node.ledger.prove(compute_key(Account, ALICE)).value is not None
    node.close()


def test_the_store_gives_the_sets_of_every_height(tmp_path: Path) -> None:
    from tests.light.test_client import make_changing_chain

    chain = make_changing_chain()
    node = ServingNode(tmp_path, chain)
    with node.reader.snapshot() as snapshot:
        assert {height: snapshot.light_block(height) for height in chain.blocks} == chain.blocks
        assert snapshot.light_block(chain.height + 1) is None
        assert snapshot.light_block(0) is None
    node.close()


def test_a_file_without_sets_gains_them_from_the_next_block_on(tmp_path: Path) -> None:
    """As written by the version before light clients."""
    import sqlite3

    chain = LightChain()
    chain.run(3)
    ServingNode(tmp_path, chain).close()
    with sqlite3.connect(tmp_path / "chain.sqlite") as connection:
        connection.execute("DROP TABLE validator_sets")
        connection.execute("UPDATE meta SET value = CAST('1' AS BLOB) WHERE name = 'schema_version'")
    connection.close()
    chain.run(4)
    node = ServingNode(tmp_path, chain)
    with node.reader.snapshot() as snapshot:
        found = [snapshot.light_block(height) for height in range(1, 8)]
    assert found[:5] == [None] * 5
    assert found[5:] == [chain.blocks[6], chain.blocks[7]]
    node.close()
