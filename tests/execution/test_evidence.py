"""Who signs two things for one step pays, once; who reports it earns a tenth."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from flockchain.codec import decode, encode
from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.execution.block import check_tx, get_validators
from flockchain.execution.evidence import double_proposal, double_vote
from flockchain.execution.evidence.signed_pair import SignedPair, make_pair
from flockchain.execution.staking import get_bond_uflk, make_validator_target
from flockchain.genesis import sign_possession
from flockchain.txs import slash, stake, submit_adapter, transfer, unjail, unstake, vote
from flockchain.types.chain import PRECOMMIT, PREVOTE, ProposalBody, VoteBody
from flockchain.types.rows import Infraction, Unbonding
from flockchain.types.tx import SignedTx
from tests.execution.stories import EVIDENCE_AGE_MS, UNBONDING_MS, enroll, make_quick_genesis, wait_for_phase
from tests.support.ledger import BOND_UFLK, Ledger, make_address, make_beacon_chain, make_key

ONE, OTHER, NIL = sha256(b"one"), sha256(b"other"), b""
VAL3 = make_address("val3")
TARGET = make_validator_target(VAL3)


def two_votes(
    ledger: Ledger, height: int = 1, kind: int = PREVOTE, first: bytes = ONE, second: bytes = OTHER
) -> slash.Body:
    votes = (ledger.sign_vote("val3", VoteBody(kind, height, 0, block_id)) for block_id in (first, second))
    return slash.Body("double-vote", encode(double_vote.make_evidence(*votes)))


def two_proposals(ledger: Ledger, second: ProposalBody) -> slash.Body:
    proposals = (ledger.sign_proposal("val3", body) for body in (ProposalBody(1, 0, ONE, -1), second))
    return slash.Body("double-proposal", encode(double_proposal.make_evidence(*proposals)))


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(make_quick_genesis())
    ledger.skip(2_000, blocks=2)
    return ledger


@pytest.mark.parametrize(
    "evidence",
    [
        lambda ledger: two_votes(ledger),
        lambda ledger: two_votes(ledger, kind=PRECOMMIT),
        lambda ledger: two_votes(ledger, second=NIL),
        lambda ledger: two_votes(ledger, height=3),
        lambda ledger: two_proposals(ledger, ProposalBody(1, 0, OTHER, -1)),
    ],
    ids=["prevotes", "precommits", "nil", "next height", "proposals"],
)
def test_signing_twice_costs_five_percent_and_the_seat(
    ledger: Ledger, evidence: Callable[[Ledger], slash.Body]
) -> None:
    before, pool = ledger.balance("alice"), ledger.chain.community_pool_uflk
    outcome = ledger.produce(ledger.tx("alice", evidence(ledger), fee_uflk=0))
    assert outcome.results[0].message == ""
    taken = BOND_UFLK * 50_000 // 10**6
    assert taken == 500_000_000
    assert ledger.validator("val3").bond_uflk == BOND_UFLK - taken
    assert ledger.balance("alice") == before + taken // 10  # free, and a tenth
    assert ledger.chain.community_pool_uflk >= pool + taken - taken // 10
    assert ledger.validator("val3").tombstoned
    assert VAL3 not in {m.address for m in get_validators(ledger.state, ledger.chain.height + 2)}
    receipt = next(receipt for receipt in outcome.receipts if receipt.kind == "slash")
    facts = {amount.name: amount.value for amount in receipt.facts}
    assert facts.pop("as_of_height") in (0, 1)
    assert facts == {
        "penalty_ppm": 50_000,
        "bonded_uflk": taken,
        "delegated_uflk": 0,
        "unbonding_uflk": 0,
        "reporter_uflk": taken // 10,
    }
    assert receipt.evidence == evidence(ledger).evidence


def test_an_offender_is_punished_once(ledger: Ledger) -> None:
    ledger.must("alice", two_votes(ledger))
    for again in (two_votes(ledger), two_votes(ledger, kind=PRECOMMIT), two_votes(ledger, height=2)):
        assert ledger.send("bob", again).code == "already-punished"
    assert ledger.validator("val3").bond_uflk == BOND_UFLK - 500_000_000


def test_only_the_first_report_is_free(ledger: Ledger) -> None:
    body = two_votes(ledger)
    free = ledger.tx("alice", body, fee_uflk=0)
    assert check_tx(ledger.state, free, ledger.chain.time_ms).is_due
    outcome = ledger.produce(free, ledger.tx("bob", body, fee_uflk=0))
    assert [result.code for result in outcome.results] == ["ok", "fee-too-low"]


def test_a_tombstoned_validator_never_returns(ledger: Ledger) -> None:
    ledger.must("alice", two_votes(ledger))
    assert ledger.send("owner3", unjail.Body(VAL3)).code == "tombstoned"
    more = stake.Body("validator", 5, public_key=bytes(make_key("val3").verify_key))
    assert ledger.send("owner3", more).code == "tombstoned"
    ledger.must("owner3", unstake.Body(TARGET, BOND_UFLK - 500_000_000))


@pytest.mark.parametrize("blocks_in_jail", [0, 5], ids=["still in the set", "out of the set"])
def test_a_jailed_validator_that_signs_twice_is_slashed_and_tombstoned(ledger: Ledger, blocks_in_jail: int) -> None:
    """Jailed for downtime, it signs twice at the newest height: as member of the set of then, or as none."""
    while not ledger.validator("val3").jailed_until_ms:
        ledger.produce(absent=["val3"])
    ledger.skip(blocks_in_jail * 1_000, blocks=blocks_in_jail)
    height, bond_uflk = ledger.chain.height, ledger.validator("val3").bond_uflk
    assert (VAL3 in {member.address for member in get_validators(ledger.state, height)}) == (blocks_in_jail == 0)
    ledger.must("alice", two_votes(ledger, height=height))
    found = ledger.validator("val3")
    assert (found.tombstoned, found.bond_uflk) == (True, bond_uflk - bond_uflk * 50_000 // 10**6)
    ledger.produce(elapsed_ms=60_000)
    assert ledger.send("owner3", unjail.Body(VAL3)).code == "tombstoned", "when the jail would have ended"


def test_stake_that_left_after_the_offence_is_slashed_with_the_bond(ledger: Ledger) -> None:
    ledger.must("owner3", unstake.Body(TARGET, BOND_UFLK // 2))
    ledger.must("alice", two_votes(ledger))
    entry = ledger.state.first(Unbonding)
    assert entry is not None
    assert entry.amount_uflk == ledger.validator("val3").bond_uflk == BOND_UFLK // 2 * 95 // 100


def test_stake_that_left_before_the_offence_is_spared(ledger: Ledger) -> None:
    ledger.must("owner3", unstake.Body(TARGET, BOND_UFLK // 2))
    ledger.skip(5_000, blocks=5)
    ledger.must("alice", two_votes(ledger, height=ledger.chain.height))
    entry = ledger.state.first(Unbonding)
    assert entry is not None
    assert entry.amount_uflk == BOND_UFLK // 2


def test_a_whole_bond_on_its_way_out_is_slashed(ledger: Ledger) -> None:
    ledger.must("owner3", unstake.Body(TARGET, BOND_UFLK))
    ledger.must("alice", two_votes(ledger))
    entry = ledger.state.first(Unbonding)
    assert entry is not None
    assert entry.amount_uflk == BOND_UFLK * 95 // 100


def test_old_evidence_does_not_count(ledger: Ledger) -> None:
    body = two_votes(ledger)
    ledger.produce(elapsed_ms=EVIDENCE_AGE_MS)
    ledger.produce()
    result = ledger.send("alice", body)
    assert result.code == "evidence-too-old"
    assert ledger.validator("val3").bond_uflk == BOND_UFLK


def test_a_punished_offence_is_forgotten_when_its_evidence_is_too_old(ledger: Ledger) -> None:
    body = two_votes(ledger)
    ledger.must("alice", body)
    assert ledger.state.first(Infraction) is not None
    ledger.produce(elapsed_ms=EVIDENCE_AGE_MS + 1)
    assert ledger.state.first(Infraction) is None
    assert ledger.send("bob", body).code == "evidence-too-old"


@pytest.mark.parametrize(
    ("deviation", "sentence"),
    [
        ("same block", "are for the same block: that is no offence"),
        ("other round", "differ in validator, kind, height or round"),
        ("unsorted", "are sorted by block id"),
        ("forged", "has a wrong signature"),
        ("future", "is not between"),
        ("stranger", "there is no validator"),
    ],
)
def test_what_proves_no_offence_is_refused(ledger: Ledger, deviation: str, sentence: str) -> None:
    evidence = decode(double_vote.Evidence, two_votes(ledger).evidence)
    first, second = evidence.first, evidence.second
    if deviation == "same block":
        evidence = double_vote.Evidence(first, first)
    elif deviation == "other round":
        evidence = double_vote.make_evidence(first, ledger.sign_vote("val3", replace(second.body, round=1)))
    elif deviation == "unsorted":
        evidence = double_vote.Evidence(second, first)
    elif deviation == "forged":
        evidence = double_vote.Evidence(first, replace(second, signature=bytes(64)))
    elif deviation == "future":
        evidence = decode(double_vote.Evidence, two_votes(ledger, height=99).evidence)
    else:
        evidence = double_vote.Evidence(replace(first, validator=bytes(20)), replace(second, validator=bytes(20)))
    result = ledger.send("alice", slash.Body("double-vote", encode(evidence)))
    assert sentence in result.message
    assert ledger.validator("val3").bond_uflk == BOND_UFLK


def test_an_offence_is_punished_though_its_validator_has_left(ledger: Ledger) -> None:
    """It unbonds whole after the offence and is out of the set; within the evidence age the queue still pays, once."""
    body = two_votes(ledger, height=2)
    ledger.must("owner3", unstake.Body(TARGET, BOND_UFLK))
    ledger.skip(EVIDENCE_AGE_MS - 10_000, blocks=4)
    assert VAL3 not in {m.address for m in get_validators(ledger.state, ledger.chain.height)}
    ledger.must("alice", body)
    entry = ledger.state.first(Unbonding)
    assert entry is not None
    assert entry.amount_uflk == BOND_UFLK * 95 // 100
    assert ledger.validator("val3").tombstoned
    assert ledger.send("bob", body).code == "already-punished"


def test_what_was_released_before_the_report_is_gone(ledger: Ledger) -> None:
    """The evidence age ends before the unbonding time does: no offence can be reported after its stake has left."""
    ledger.must("owner3", unstake.Body(TARGET, BOND_UFLK))
    body = two_votes(ledger, height=ledger.chain.height)
    ledger.produce(elapsed_ms=UNBONDING_MS)
    assert ledger.state.first(Unbonding) is None
    assert ledger.send("alice", body).code == "evidence-too-old"


def test_an_account_without_a_validator_can_commit_no_double_sign(ledger: Ledger) -> None:
    """Votes with sound signatures, of a key that never was a validator's."""
    votes = [ledger.sign_vote("val9", VoteBody(PREVOTE, 1, 0, block_id)) for block_id in (ONE, OTHER)]
    result = ledger.send("alice", slash.Body("double-vote", encode(double_vote.make_evidence(*votes))))
    assert (result.code, "there is no validator" in result.message) == ("not-found", True)


def test_a_height_before_the_validator_joined_is_no_offence(ledger: Ledger) -> None:
    body = stake.Body(
        "validator",
        BOND_UFLK,
        public_key=bytes(make_key("val7").verify_key),
        possession=sign_possession(make_key("val7"), ledger.chain.chain_id, make_address("alice")),
        beacon_head=make_beacon_chain("val7").head,
    )
    ledger.must("alice", body)
    joined = ledger.validator("val7").joined_height
    votes = [ledger.sign_vote("val7", VoteBody(PREVOTE, joined - 1, 0, block_id)) for block_id in (ONE, OTHER)]
    result = ledger.send("bob", slash.Body("double-vote", encode(double_vote.make_evidence(*votes))))
    assert (result.code, "is not between" in result.message) == ("bad-evidence", True)


@pytest.mark.parametrize("ahead", [2, 3, 1_000])
def test_a_height_that_is_not_yet_is_no_offence(ledger: Ledger, ahead: int) -> None:
    """The next block's height can be signed already; the one after cannot."""
    result = ledger.send("alice", two_votes(ledger, height=ledger.chain.height + 1 + ahead))
    assert (result.code, "is not between" in result.message) == ("bad-evidence", True)


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (ProposalBody(1, 0, ONE, 0), "are for the same block: that is no offence"),
        (ProposalBody(1, 1, OTHER, -1), "differ in proposer, height or round: that is no offence"),
    ],
)
def test_proposals_that_prove_no_offence(ledger: Ledger, second: ProposalBody, sentence: str) -> None:
    result = ledger.send("alice", two_proposals(ledger, second))
    assert sentence in result.message
    assert ledger.validator("val3").bond_uflk == BOND_UFLK


def test_a_signature_of_another_network_is_no_evidence(ledger: Ledger) -> None:
    other = Ledger(make_quick_genesis(validators=5))
    result = ledger.send("alice", two_votes(other))
    assert "has a wrong signature" in result.message


def submit(ledger: Ledger, root: bytes, *, nonce: int | None = None) -> bytes:
    return ledger.tx("bob", submit_adapter.Body(1, 1, root, 1_000, b"", 10, "test"), fee_uflk=0, nonce=nonce)


def pair_body(kind: str, one: bytes, other: bytes) -> slash.Body:
    return slash.Body(kind, encode(make_pair(decode(SignedTx, one), decode(SignedTx, other))))


@pytest.mark.parametrize("nonces", [(1, 1), (1, 2)])
def test_two_adapters_signed_for_one_round_cost_half_the_bond(nonces: tuple[int, int]) -> None:
    ledger = Ledger(make_quick_genesis())
    enroll(ledger)
    wait_for_phase(ledger, "train")
    first, second = submit(ledger, ONE, nonce=nonces[0]), submit(ledger, OTHER, nonce=nonces[1])
    assert ledger.produce(first).results[0].code == "ok"
    refused = ledger.produce(second).results[0].code
    assert refused == ("nonce-spent" if nonces[1] == 1 else "fee-too-low")  # no longer due, so no longer free
    with pytest.raises(Refused, match="was submitted for round 1 of task 1: one adapter a round"):
        check_tx(ledger.state, submit(ledger, OTHER), ledger.chain.time_ms)
    body = pair_body("double-submission", first, second)
    before = ledger.balance("heidi")
    result = ledger.produce(ledger.tx("heidi", body, fee_uflk=0)).results[0]
    assert result.message == ""
    assert get_bond_uflk(ledger.state, make_address("bob"), "task:1") == 1_000_000
    assert ledger.balance("heidi") == before + 100_000
    assert ledger.send("grace", body).code == "already-punished"


def test_the_same_adapter_signed_again_is_no_offence() -> None:
    ledger = Ledger(make_quick_genesis())
    enroll(ledger)
    wait_for_phase(ledger, "train")
    body = pair_body("double-submission", submit(ledger, ONE, nonce=1), submit(ledger, ONE, nonce=2))
    assert "name the same adapter: that is no offence" in ledger.send("heidi", body).message


def test_two_sealed_votes_cost_half_the_bond() -> None:
    ledger = Ledger(make_quick_genesis())
    enroll(ledger)
    wait_for_phase(ledger, "train")
    ledger.produce(submit(ledger, ONE))
    training = wait_for_phase(ledger, "publish")
    assert {seat.address for seat in training.committee} == {make_address(n) for n in ("carol", "dave", "erin")}
    votes = [ledger.tx("carol", vote.Body(1, 1, seal=seal), nonce=1) for seal in (ONE, OTHER)]
    result = ledger.send("heidi", pair_body("double-seal", votes[0], votes[1]))
    assert result.message == ""
    assert get_bond_uflk(ledger.state, make_address("carol"), "task:1") == 1_000_000


def test_a_drawn_participant_cannot_unstake() -> None:
    ledger = Ledger(make_quick_genesis())
    enroll(ledger)
    wait_for_phase(ledger, "train")
    result = ledger.send("bob", unstake.Body("task:1", 2_000_000))
    assert result.message == "the owner is drawn in the current round of task 1: unstake when it has settled"


def test_a_pair_of_foreign_kinds_proves_nothing(ledger: Ledger) -> None:
    txs = [ledger.tx("bob", transfer.Body(VAL3, amount, ""), nonce=0) for amount in (1, 2)]
    result = ledger.send("heidi", pair_body("double-seal", txs[0], txs[1]))
    assert "proves nothing here" in result.message
    assert SignedPair.__struct_fields__ == ("first", "second")


def test_an_unknown_evidence_kind_names_the_known_ones(ledger: Ledger) -> None:
    with pytest.raises(Exception, match="there are: double-proposal, double-seal, double-submission, double-vote"):
        check_tx(ledger.state, ledger.tx("alice", slash.Body("gossip", b"")), ledger.chain.time_ms)
