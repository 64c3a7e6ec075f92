"""The signer never signs two values for one height, round and step, whatever restarts in between."""

import json
from pathlib import Path

import pytest

from flockchain.codec import encode
from flockchain.crypto import is_signature_valid, signing_context
from flockchain.errors import Fault, Refused
from flockchain.node.signer import PersistedSigner, create_signer_state
from flockchain.types.chain import PRECOMMIT, PREVOTE, VOTE_PURPOSE, ProposalBody, VoteBody
from tests.support.ledger import make_key

KEY = make_key("val0")
GENESIS = b"g" * 32
A, B, NIL = b"a" * 32, b"b" * 32, b""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_signer_state(tmp_path / "signer_state.json", bytes(KEY.verify_key))
    return tmp_path / "signer_state.json"


def open_signer(path: Path) -> PersistedSigner:
    return PersistedSigner(KEY, path, GENESIS)


def test_the_same_vote_gets_the_same_signature_after_a_restart(path: Path) -> None:
    body = VoteBody(PREVOTE, 5, 0, A)
    first = open_signer(path).sign_vote(body)
    assert open_signer(path).sign_vote(body) == first
    assert is_signature_valid(first_key(), signing_context(VOTE_PURPOSE, GENESIS), encode(body), first.signature)


def first_key() -> bytes:
    return bytes(KEY.verify_key)


@pytest.mark.parametrize(("first", "second"), [(A, B), (A, NIL), (NIL, A)])
@pytest.mark.parametrize("kind", [PREVOTE, PRECOMMIT])
def test_another_vote_of_the_same_step_is_refused_after_a_restart(
    path: Path, kind: int, first: bytes, second: bytes
) -> None:
    open_signer(path).sign_vote(VoteBody(kind, 5, 2, first))
    with pytest.raises(Refused, match="signed another value at height 5, round 2"):
        open_signer(path).sign_vote(VoteBody(kind, 5, 2, second))


def test_another_proposal_of_the_same_round_is_refused(path: Path) -> None:
    signer = open_signer(path)
    signed = signer.sign_proposal(ProposalBody(5, 0, A, -1))
    assert open_signer(path).sign_proposal(ProposalBody(5, 0, A, -1)) == signed
    with pytest.raises(Refused):
        open_signer(path).sign_proposal(ProposalBody(5, 0, B, -1))


def test_steps_that_were_passed_by_are_refused(path: Path) -> None:
    signer = open_signer(path)
    signer.sign_vote(VoteBody(PRECOMMIT, 5, 1, A))
    for late in (VoteBody(PREVOTE, 5, 1, A), VoteBody(PRECOMMIT, 5, 0, A), VoteBody(PRECOMMIT, 4, 9, A)):
        with pytest.raises(Refused, match="already signed beyond"):
            signer.sign_vote(late)


def test_a_whole_height_is_repeated_signature_by_signature(path: Path) -> None:
    bodies = [VoteBody(kind, 7, round, A if round else NIL) for round in range(4) for kind in (PREVOTE, PRECOMMIT)]
    first = [open_signer(path).sign_vote(body) for body in bodies]
    replayed = open_signer(path)
    assert [replayed.sign_vote(body) for body in bodies] == first


def test_a_key_without_its_state_refuses_to_start(path: Path) -> None:
    path.unlink()
    with pytest.raises(Fault, match="could sign twice"):
        open_signer(path)


def test_the_state_of_another_key_is_refused(path: Path) -> None:
    with pytest.raises(Fault, match="belongs to another key"):
        PersistedSigner(make_key("val1"), path, GENESIS)


@pytest.mark.parametrize("content", ["", "{}", '{"version": 1}', "[]", "not json"])
def test_a_damaged_state_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(Fault, match="damaged"):
        open_signer(path)


def test_the_state_is_on_disk_before_the_signature_leaves(path: Path) -> None:
    signed = open_signer(path).sign_vote(VoteBody(PREVOTE, 5, 0, A))
    document = json.loads(path.read_text())
    assert [entry["signature"] for entry in document["signed"]] == [signed.signature.hex()]


def test_a_state_that_exists_is_never_replaced(path: Path) -> None:
    with pytest.raises(Refused, match="nothing was replaced"):
        create_signer_state(path, bytes(KEY.verify_key))
