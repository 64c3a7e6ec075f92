"""Parameters and protocol versions change by more than two thirds of the power, at a stated block, for all alike.

Four validators of equal power: two are not enough, three are.
"""

from typing import Any

import pytest
from msgspec.structs import replace

from flockchain.codec import encode
from flockchain.errors import Refused
from flockchain.execution import governance, upgrade
from flockchain.execution.block import check_block, compute_next_due_ms, execute_block, get_validators
from flockchain.execution.context import Context
from flockchain.execution.epochs import find_epoch, get_evidence_age_ms, get_params_of, get_protocol_version
from flockchain.execution.evidence import double_vote
from flockchain.execution.genesis import build_state, load_state
from flockchain.execution.governance import MAX_CHANGE_MS, MAX_OPEN_PER_VALIDATOR
from flockchain.execution.staking import make_validator_target
from flockchain.execution.upgrade import find_upgrade_needed
from flockchain.genesis import Genesis
from flockchain.params import DAY_MS, RANGES, Params, check_params, get_param
from flockchain.txs import (
    approve_change,
    create_task,
    edit_validator,
    propose_change,
    slash,
    stake,
    submit_adapter,
    transfer,
    unstake,
)
from flockchain.types.chain import PREVOTE, VoteBody
from flockchain.types.change import Setting, Upgrade
from flockchain.types.rows import Approval, Change, Epoch, OpenChange, ScheduledChange
from flockchain.types.tx import OK, TxResult
from tests.execution.stories import enroll, make_quick_genesis, make_spec, wait_for_phase
from tests.support.ledger import BOND_UFLK, Ledger, make_address, make_genesis

MIN_FEE = "fees.min_fee_uflk"
HOUR_MS = 3_600_000


class Assembly:
    """A ledger whose validators propose and approve."""

    def __init__(self, genesis: Genesis | None = None, **options: Any) -> None:
        self.ledger = Ledger(genesis or make_genesis(**options))
        self.state = self.ledger.state

    def propose(self, index: int = 0, *, deadline_ms: int = HOUR_MS, **content: Any) -> TxResult:
        body = propose_change.Body(
            validator=make_address(f"val{index}"),
            deadline_ms=self.ledger.chain.time_ms + deadline_ms,
            **content,
        )
        return self.ledger.send(f"owner{index}", body)

    def must_propose(self, index: int = 0, **content: Any) -> int:
        """Number of the new change."""
        result = self.propose(index, **content)
        assert result.code == OK, result.message
        return max(change.id for change in self.state.iterate(Change))

    def set(self, path: str, value: int) -> dict[str, Any]:
        return {"settings": (Setting(path, value),)}

    def approve(self, number: int, *indexes: int) -> list[str]:
        """One block with all approvals; their codes."""
        txs = [
            self.ledger.tx(f"owner{index}", approve_change.Body(make_address(f"val{index}"), number))
            for index in indexes
        ]
        return [result.code for result in self.ledger.produce(*txs).results]

    def enact(self, **content: Any) -> int:
        """Proposed by one, approved by two more."""
        number = self.must_propose(**content)
        assert self.approve(number, 1, 2) == [OK, OK]
        return number

    def change(self, number: int) -> Change:
        return self.state.get(Change, number)


@pytest.fixture
def four() -> Assembly:
    return Assembly()


def test_three_of_four_change_a_parameter_two_blocks_later(four: Assembly) -> None:
    before = four.ledger.chain.params
    number = four.must_propose(**four.set(MIN_FEE, 250))
    assert four.approve(number, 1) == [OK]
    assert four.change(number).status == "open", "half of the power is not enough"
    assert four.approve(number, 2) == [OK]
    decided = four.ledger.chain.height
    change = four.change(number)
    assert (change.status, change.effective_height) == ("approved", decided + 2)
    assert (change.approved_power, change.total_power) == (3 * BOND_UFLK, 4 * BOND_UFLK)
    four.ledger.skip(2_000, 2)
    hashes = [block.header.params_hash for block in four.ledger.blocks]
    after = replace(before, fees=replace(before.fees, min_fee_uflk=250))
    assert hashes[decided] == before.hash(), "the block after the approval still has the old parameters"
    assert hashes[decided + 1] == after.hash(), "the stated block has the new ones in its header"
    assert four.ledger.chain.params == after
    assert four.change(number).status == "enacted"


def test_the_stated_block_is_the_first_that_is_judged_by_the_new_parameters(four: Assembly) -> None:
    def pay(fee_uflk: int) -> TxResult:
        return four.ledger.send("alice", transfer.Body(make_address("bob"), 1, ""), fee_uflk=fee_uflk)

    four.enact(**four.set(MIN_FEE, 250_000))
    assert pay(1_000).code == OK
    refused = pay(1_000)
    assert refused.code == "fee-too-low", "this is the stated block"
    assert "250" in refused.message


def test_a_validator_counts_once(four: Assembly) -> None:
    number = four.must_propose(**four.set(MIN_FEE, 250))
    assert four.approve(number, 0) == ["already-approved"], "proposing was approving"
    assert four.approve(number, 1, 1) == [OK, "already-approved"]
    assert four.change(number).status == "open"


def test_who_left_before_the_count_does_not_count() -> None:
    """Power 10, 10, 10 and 12 million: after val1 has left, 22 of 32 agree; with val1's consent they would be 3/4."""
    unit = 10**9
    four = Assembly(bonds_uflk=(10 * unit, 10 * unit, 10 * unit, 12 * unit))
    number = four.must_propose(**four.set(MIN_FEE, 250))
    assert four.approve(number, 1) == [OK]
    leave = unstake.Body(f"validator:{make_address('val1').hex()}", 10 * unit)
    four.ledger.must("owner1", leave)
    assert four.approve(number, 2) == [OK]
    assert four.change(number).status == "open", "20 of 32 without val1's"
    assert four.approve(number, 1) == ["not-active"]
    assert four.approve(number, 3) == [OK]
    assert (four.change(number).approved_power, four.change(number).total_power) == (32 * unit, 32 * unit)


def test_a_tombstoned_validators_approval_no_longer_counts(four: Assembly) -> None:
    number = four.must_propose(**four.set(MIN_FEE, 250))
    assert four.approve(number, 1) == [OK]
    votes = (four.ledger.sign_vote("val1", VoteBody(PREVOTE, 2, 0, b)) for b in (b"r" * 32, b""))
    four.ledger.must("alice", slash.Body("double-vote", encode(double_vote.make_evidence(*votes))), fee_uflk=0)
    assert governance.compute_approval(four.state, number, four.ledger.chain.height + 2) == (BOND_UFLK, 3 * BOND_UFLK)
    assert four.change(number).status == "open"
    assert four.approve(number, 2) == [OK]
    assert four.change(number).status == "open", "two of three are not more than two thirds"
    assert four.approve(number, 3) == [OK]
    assert four.change(number).status == "approved"


def test_a_leaver_can_tip_the_balance() -> None:
    """Nobody approves in that block: the count changes because the set does."""
    four = Assembly()
    number = four.must_propose(**four.set(MIN_FEE, 250))
    four.approve(number, 1)
    four.ledger.must("owner3", unstake.Body(f"validator:{make_address('val3').hex()}", BOND_UFLK))
    assert four.change(number).status == "open", "two of three"
    four.ledger.must("owner2", unstake.Body(f"validator:{make_address('val2').hex()}", BOND_UFLK))
    assert four.change(number).status == "approved", "two of two"


def test_an_expired_change_is_removed_with_its_approvals(four: Assembly) -> None:
    number = four.must_propose(deadline_ms=10_000, **four.set(MIN_FEE, 250))
    four.approve(number, 1)
    four.ledger.skip(20_000)
    assert four.state.find(Change, number) is None
    assert list(four.state.iterate(OpenChange)) == []
    assert list(four.state.iterate(Approval)) == []
    (receipt,) = four.ledger.outcomes[-1].receipts
    assert (receipt.kind, receipt.reason) == ("change", f"change {number} ran out without enough approvals")
    assert four.approve(number, 2) == ["not-found"]


def test_an_approval_in_the_first_block_after_the_deadline_is_refused(four: Assembly) -> None:
    number = four.must_propose(deadline_ms=10_000, **four.set(MIN_FEE, 250))
    four.approve(number, 1)
    late = four.ledger.tx("owner2", approve_change.Body(make_address("val2"), number))
    assert four.ledger.produce(late, elapsed_ms=60_000).results[0].code == "change-closed"


def test_open_changes_are_bounded(four: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in range(MAX_OPEN_PER_VALIDATOR):
        four.must_propose(**four.set(MIN_FEE, 200 + value))
    assert four.propose(**four.set(MIN_FEE, 300)).code == "too-many-changes"
    monkeypatch.setattr(governance, "MAX_OPEN_CHANGES", MAX_OPEN_PER_VALIDATOR)
    assert four.propose(1, **four.set(MIN_FEE, 300)).code == "too-many-changes"


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        ({"settings": (Setting("fees.tip", 1),)}, "unknown-parameter", "there is no parameter 'fees.tip'"),
        ({"settings": (Setting("fees", 1),)}, "unknown-parameter", "there is no parameter 'fees'"),
        ({"settings": (Setting(MIN_FEE, 100),)}, "nothing-to-do", "have these values already"),
        ({"settings": (Setting(MIN_FEE, 10**12),)}, "bad-params", "fees.min_fee_uflk is 1000000000000, possible is 0"),
        ({"settings": (Setting("stake.trusting_period_ms", 20 * DAY_MS),)}, "bad-params", "need trusting_period_ms <"),
        ({"settings": (Setting("stake.unbonding_ms", 20 * DAY_MS + 1),)}, "bad-params", "stake.unbonding_ms may only"),
        ({"settings": (Setting("consensus.max_tx_bytes", 4_096),)}, "bad-params", "ballots of open tasks must fit"),
        ({"settings": (Setting("consensus.max_block_bytes", 200_000),)}, "bad-params", "below a quarter"),
        ({"settings": (Setting("stake.min_validator_bond_uflk", 10**12),)}, "bad-params", "nobody could sign"),
        ({"settings": (Setting("stake.inflation_ppm_per_year", 10**6 + 1),)}, "bad-params", "possible is 0..1000000"),
        ({"upgrade": Upgrade(3, "", 100, 0)}, "bad-upgrade", "protocol version 3: the next one is 2"),
        ({"upgrade": Upgrade(1, "", 100, 0)}, "bad-upgrade", "protocol version 1: the next one is 2"),
        ({"upgrade": Upgrade(2, "", 2, 0)}, "bad-upgrade", "upgrade height 2 is too near: 3 is the earliest now"),
        ({"upgrade": Upgrade(2, "", 0, 5)}, "bad-upgrade", "upgrade time 5 ms is not after"),
        ({"cancels": 7}, "not-scheduled", "change 7 does not wait to come into force"),
        ({"cancels": 7, "deadline_ms": MAX_CHANGE_MS + 10**7}, "bad-deadline", "and until"),
        ({"cancels": 7, "deadline_ms": -5}, "bad-deadline", "after the block's"),
    ],
)
def test_a_proposal_that_breaks_a_rule_is_refused(
    four: Assembly, content: dict[str, Any], code: str, sentence: str
) -> None:
    result = four.propose(**content)
    assert result.code == code
    assert sentence in result.message
    assert list(four.state.iterate(Change)) == []


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"cancels": 1, "settings": (Setting(MIN_FEE, 200),)},
        {"settings": (Setting(MIN_FEE, 200), Setting(MIN_FEE, 300))},
        {"settings": (Setting("stake.jail_ms", 1), Setting(MIN_FEE, 300))},
        {"upgrade": Upgrade(2, "", 5, 5)},
        {"upgrade": Upgrade(2, "", 0, 0)},
    ],
)
def test_a_proposal_without_one_clear_content_makes_a_block_invalid(four: Assembly, content: dict[str, Any]) -> None:
    body = propose_change.Body(
        validator=make_address("val0"), deadline_ms=four.ledger.chain.time_ms + HOUR_MS, **content
    )
    with pytest.raises(Refused) as refused:
        check_block(four.state, four.ledger.build(four.ledger.tx("owner0", body)))
    assert refused.value.code == "bad-change"


def test_only_the_owner_of_a_validator_with_power_proposes_and_approves(four: Assembly) -> None:
    number = four.must_propose(**four.set(MIN_FEE, 250))
    for sender in ("owner1", "alice"):
        result = four.ledger.send(sender, approve_change.Body(make_address("val0"), number))
        assert result.code == "not-owner"
    assert four.ledger.send("alice", approve_change.Body(make_address("alice"), number)).code == "not-found"


def test_two_changes_that_only_clash_together_are_both_approved_and_the_second_comes_to_nothing() -> None:
    four = Assembly()
    first = four.must_propose(0, **four.set("stake.trusting_period_ms", 19 * DAY_MS))
    second = four.must_propose(1, **four.set("tasks.min_phase_ms", 10 * DAY_MS))
    third = four.must_propose(2, **four.set("tasks.max_phase_ms", 9 * DAY_MS))
    txs = [
        four.ledger.tx(f"owner{i}", approve_change.Body(make_address(f"val{i}"), number))
        for number in (first, second, third)
        for i in range(4)
    ]
    four.ledger.produce(*txs)
    four.ledger.skip(3_000, 3)
    assert [four.change(n).status for n in (first, second, third)] == ["enacted", "enacted", "void"]
    assert "min_phase_ms is above" in four.change(third).outcome
    assert four.ledger.chain.params.tasks.max_phase_ms == 30 * DAY_MS
    assert len(list(four.state.iterate(Epoch))) == 2, "two changes of one block are one epoch"


def test_a_higher_least_bond_removes_a_validator_two_blocks_after_it_is_in_force() -> None:
    four = Assembly(bonds_uflk=(4 * 10**9, 4 * 10**9, 4 * 10**9, 10**9))
    number = four.enact(**four.set("stake.min_validator_bond_uflk", 2 * 10**9))
    four.ledger.skip(1_000)
    assert four.change(number).status == "enacted"
    four.ledger.skip(3_000, 3)
    header = four.ledger.blocks[-1].header
    assert len(four.ledger.commits[-1].signatures) == 3
    assert four.ledger.validator("val3").active is False
    assert header.params_hash == four.ledger.chain.params.hash()


# -- what a change does not touch -------------------------------------------------------------------------------------


def test_parameters_of_the_past_stay_known(four: Assembly) -> None:
    before, first_ms = four.ledger.chain.params, four.ledger.chain.time_ms
    four.enact(**four.set(MIN_FEE, 250))
    four.ledger.skip(5_000, 5)
    for block in four.ledger.blocks:
        assert get_params_of(four.state, block.header.time_ms).hash() == block.header.params_hash
    assert get_params_of(four.state, first_ms) == before


def test_an_open_task_keeps_the_parameters_of_its_creation() -> None:
    """The cap of penalties falls below the task's own: its silent judges still lose what it stated, others cannot."""
    four = Assembly(make_quick_genesis())
    enroll(four.ledger)
    four.enact(**four.set("tasks.max_penalty_ppm", 1_000))
    four.ledger.skip(1_000)
    refused = four.ledger.send("alice", create_task.Body(make_spec(), 0))
    assert (refused.code, "at most 1000 is possible" in refused.message) == ("bad-task", True)
    trained = wait_for_phase(four.ledger, "train")
    assert trained.trainers
    four.ledger.must("bob", submit_adapter.Body(1, 1, b"r" * 32, 9, b"", 1, ""), fee_uflk=0)
    slashes = []
    for _ in range(60):
        four.ledger.produce()
        slashes += [r for r in four.ledger.outcomes[-1].receipts if r.kind == "slash"]
    absent = [{fact.name: fact.value for fact in slash.facts} for slash in slashes]
    assert {facts["penalty_ppm"] for facts in absent} == {make_spec().penalties.absent_ppm}


def test_a_longer_evidence_age_does_not_reach_back() -> None:
    """An offence that had run out under the old age stays so; a new one is punishable for the new age."""
    four = Assembly()
    offence_ms = four.ledger.chain.time_ms
    old_age_ms = four.ledger.chain.params.stake.evidence_age_ms
    four.enact(settings=(Setting("stake.evidence_age_ms", 21 * DAY_MS), Setting("stake.unbonding_ms", 22 * DAY_MS)))
    four.ledger.skip(3_000, 3)
    assert get_evidence_age_ms(four.state, offence_ms) == old_age_ms
    assert get_evidence_age_ms(four.state, four.ledger.chain.time_ms) == 21 * DAY_MS


def test_a_lower_multiple_takes_power_from_what_was_delegated_before_and_keeps_nobody() -> None:
    """Twice the own bond was delegated when ten times were allowed; then once counts, for old and new alike."""
    four = Assembly()
    val0, owner0 = make_address("val0"), make_address("owner0")
    target = make_validator_target(val0)
    four.ledger.must("owner0", edit_validator.Body(val0, "", b"", 500_000))
    four.ledger.must("alice", stake.Body(target, 2 * BOND_UFLK, delegate=owner0))

    def get_power() -> int:
        members = get_validators(four.state, four.ledger.chain.height + 2)
        return next(member.power for member in members if member.address == val0)

    assert get_power() == 3 * BOND_UFLK
    four.enact(**four.set("stake.max_delegated_multiple", 1))
    four.ledger.skip(3_000, 3)
    assert get_power() == 2 * BOND_UFLK
    assert four.ledger.send("bob", stake.Body(target, BOND_UFLK, delegate=owner0)).code == "delegation-limit"
    four.ledger.must("alice", unstake.Body(target, 2 * BOND_UFLK, owner0))
    assert get_power() == BOND_UFLK


# -- upgrades ---------------------------------------------------------------------------------------------------------


def test_headers_carry_the_new_version_from_the_stated_height_on(
    four: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version's own step runs first in its first block, and before nothing else."""
    seen: list[tuple[int, int]] = []

    def step(context: Context) -> None:
        seen.append((context.height, len(context.receipts)))

    monkeypatch.setitem(upgrade.UPGRADES, 2, step)
    number = four.enact(upgrade=Upgrade(2, "flockchain 0.2.0", 6, 0))
    assert four.change(number).status == "approved"
    four.ledger.skip(10_000, 10)
    versions = [block.header.protocol_version for block in four.ledger.blocks]
    assert versions[:5] == [1] * 5
    assert set(versions[5:]) == {2}
    assert seen == [(6, 0)]
    assert four.change(number).outcome == "in force from block 6 on"


def test_an_upgrade_by_time_begins_after_the_first_block_that_reaches_it(
    four: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(upgrade.UPGRADES, 2, lambda context: None)
    moment_ms = four.ledger.chain.time_ms + 60_000
    number = four.enact(upgrade=Upgrade(2, "", 0, moment_ms))
    assert compute_next_due_ms(four.state) == moment_ms, "proposers make a block for it"
    four.ledger.skip(56_000, 2)
    assert get_protocol_version(four.state) == 1
    four.ledger.skip(2_000)
    assert four.ledger.blocks[-1].header.time_ms >= moment_ms
    assert four.ledger.blocks[-1].header.protocol_version == 1
    assert get_protocol_version(four.state) == 2
    assert four.change(number).effective_height == four.ledger.chain.height + 1
    four.ledger.skip(1_000)
    assert four.ledger.blocks[-1].header.protocol_version == 2


def test_software_without_the_version_is_told_what_happened_what_is_safe_and_what_to_do(four: Assembly) -> None:
    four.enact(upgrade=Upgrade(2, "flockchain 0.2.0", 5, 0))
    assert find_upgrade_needed(four.state, (1,)) is None, "the height has not come"
    four.ledger.skip(2_000, 2)
    assert find_upgrade_needed(four.state, (1, 2)) is None
    needed = find_upgrade_needed(four.state, (1,))
    assert needed is not None
    for words in (
        "block 5 and all after it follow protocol version 2",
        "runs 1",
        "All blocks to 4 are stored, and nothing of block 5 was signed",
        "Install flockchain 0.2.0",
    ):
        assert words in str(needed)


def test_a_block_of_the_wrong_version_is_refused(four: Assembly) -> None:
    block = four.ledger.build()
    wrong = replace(block, header=replace(block.header, protocol_version=2))
    with pytest.raises(Refused, match="protocol version 2, from here on it is 1"):
        check_block(four.state, wrong)


def test_a_scheduled_upgrade_can_be_cancelled(four: Assembly) -> None:
    number = four.enact(upgrade=Upgrade(2, "flockchain 0.2.0", 20, 0))
    cancel = four.must_propose(1, cancels=number)
    assert four.approve(cancel, 0, 2) == [OK, OK]
    assert (four.change(number).status, four.change(cancel).status) == ("void", "enacted")
    assert list(four.state.iterate(ScheduledChange)) == []
    four.ledger.skip(20_000, 20)
    assert get_protocol_version(four.state) == 1
    assert find_epoch(four.state) is None


def test_an_upgrade_approved_too_late_comes_to_nothing(four: Assembly) -> None:
    number = four.must_propose(upgrade=Upgrade(2, "", 5, 0))
    four.approve(number, 1)
    four.ledger.skip(3_000, 3)
    assert four.approve(number, 2) == [OK]
    assert four.change(number).status == "void"
    assert "too near" in four.change(number).outcome


def test_one_upgrade_waits_at_a_time(four: Assembly) -> None:
    first = four.must_propose(0, upgrade=Upgrade(2, "a", 50, 0))
    second = four.must_propose(1, upgrade=Upgrade(2, "b", 60, 0))
    four.approve(first, 1, 2)
    four.approve(second, 0, 2)
    assert (four.change(first).status, four.change(second).status) == ("approved", "void")
    assert f"change {first} is an upgrade that waits" in four.change(second).outcome


# -- the same everywhere ----------------------------------------------------------------------------------------------


def test_a_chain_loaded_between_approval_and_effect_goes_on_alike(
    four: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that restarts in every block of the story ends with the same root as one that never did."""
    monkeypatch.setitem(upgrade.UPGRADES, 2, lambda context: None)
    four.enact(upgrade=Upgrade(2, "", 9, 0))
    four.enact(**four.set(MIN_FEE, 250))
    four.ledger.skip(6_000, 6)
    state, tree = load_state(build_state(four.ledger.genesis).rows())
    for block in four.ledger.blocks:
        check_block(state, block)
        execute_block(state, tree, block)
        state, tree = load_state(list(state.rows()))
    assert state.root == four.state.root


# -- ranges -----------------------------------------------------------------------------------------------------------


def test_every_parameter_has_a_range_and_the_defaults_are_within() -> None:
    groups = {
        f"{group}.{name}" for group in Params.__struct_fields__ for name in getattr(Params(), group).__struct_fields__
    }
    assert set(RANGES) == groups
    check_params(Params())
    for path, (least, most) in RANGES.items():
        assert least <= get_param(Params(), path) <= most
