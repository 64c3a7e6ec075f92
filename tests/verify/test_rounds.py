"""Each round's audit finds a fault by itself: rows here are false although every block is sound."""

import dataclasses
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from msgspec.structs import replace

from flockchain.execution.block import BlockOutcome
from flockchain.genesis import load_genesis
from flockchain.store.records import Records
from flockchain.types.chain import Block
from flockchain.types.rows import Draw, OpenVote, Row, row_key
from flockchain.types.tx import Amount, Receipt
from flockchain.verify.replay import Replay
from flockchain.verify.report import Report
from tests.verify.chain import Chain


@dataclasses.dataclass(slots=True)
class Replayed:
    """The whole chain again, with its last block and what that left."""

    replay: Replay
    block: Block
    outcome: BlockOutcome


Watch = Callable[[Block, BlockOutcome], BlockOutcome]


def replay_until(chain: Chain, height: int, watch: Watch) -> Replay:
    """Replay; the rounds' audit sees what `watch` makes of each outcome."""
    replay = Replay(load_genesis(chain.home / "genesis.json"), Report())
    look = replay.rounds.on_block
    replay.rounds.on_block = lambda state, block, outcome: look(state, block, watch(block, outcome))  # type: ignore[method-assign]
    with closing(Records(chain.home / "data" / "chain.sqlite")) as records, records.snapshot() as snapshot:
        while replay.height < height:
            assert replay.step(snapshot)
    replay.rounds.on_block = look  # type: ignore[method-assign]
    return replay


@pytest.fixture(scope="module")
def replayed(finished: Chain) -> Replayed:
    seen: list[tuple[Block, BlockOutcome]] = []

    def keep(block: Block, outcome: BlockOutcome) -> BlockOutcome:
        seen[:] = [(block, outcome)]
        return outcome

    replay = replay_until(finished, finished.tip, keep)
    assert replay.report.ok
    return Replayed(replay, *seen[0])


def audit(replayed: Replayed, rows: tuple[Row, ...] = (), receipts: tuple[Receipt, ...] = ()) -> list[str]:
    """What is said of a last block that leaves these rows and receipts."""
    auditor, report = replayed.replay.rounds, Report()
    before, auditor.report = auditor.beacon, report
    outcome = dataclasses.replace(replayed.outcome, receipts=receipts, write_set={row_key(row): row for row in rows})
    auditor.on_block(replayed.replay.state, replayed.block, outcome)
    auditor.beacon = before
    return [problem.what for problem in report.problems if "does not follow from the preimages" not in problem.what]


def test_a_vote_that_breaks_its_seal(replayed: Replayed) -> None:
    vote = next(iter(replayed.replay.state.iterate(OpenVote)))
    assert audit(replayed, (vote,)) == []
    (said,) = audit(replayed, (replace(vote, salt=bytes(32)),))
    assert "breaks its seal" in said


def test_a_draw_that_does_not_follow_from_the_preimages(replayed: Replayed, finished: Chain) -> None:
    draw = next(iter(replayed.replay.state.iterate(Draw)))
    said = audit(replayed, (replace(draw, draw_height=finished.tip),))
    assert any("used another beacon than the blocks give" in sentence for sentence in said)


SLASH = Receipt(
    "slash",
    bytes(20),
    100,
    1,
    1,
    "why",
    (
        Amount("bonded_uflk", 60),
        Amount("delegated_uflk", 30),
        Amount("unbonding_uflk", 10),
        Amount("reporter_uflk", 10),
    ),
    b"",
)


@pytest.mark.parametrize(
    ("change", "is_sound"),
    [
        (lambda receipt: receipt, True),
        (lambda receipt: replace(receipt, amount_uflk=101), False),
        (lambda receipt: replace(receipt, facts=(*receipt.facts[:3], Amount("reporter_uflk", 101))), False),
    ],
    ids=["sound", "more was taken than was there", "the reporter got more than was taken"],
)
def test_a_slash_is_the_sum_of_its_parts(replayed: Replayed, change: Callable[[Any], Any], is_sound: bool) -> None:
    assert (audit(replayed, receipts=(change(SLASH),)) == []) is is_sound


def test_rewards_that_are_not_the_settlement_s(finished: Chain) -> None:
    """One reward of the first round is left out of the receipts that the audit sees."""

    def lose_a_reward(block: Block, outcome: BlockOutcome) -> BlockOutcome:
        rewards = [receipt for receipt in outcome.receipts if receipt.kind == "reward"]
        kept = tuple(receipt for receipt in outcome.receipts if receipt not in rewards[:1])
        return dataclasses.replace(outcome, receipts=kept)

    replay = replay_until(finished, finished.settled_heights[0], lose_a_reward)
    assert any("the settlement says" in problem.what for problem in replay.report.problems)


def test_a_beacon_that_the_preimages_do_not_give(replayed: Replayed) -> None:
    """The last block once more: its preimage does not lead from the newest beacon to itself."""
    auditor, report = replayed.replay.rounds, Report()
    before, auditor.report = auditor.beacon, report
    auditor.on_block(replayed.replay.state, replayed.block, dataclasses.replace(replayed.outcome, write_set={}))
    auditor.beacon = before
    assert "does not follow from the preimages" in report.problems[0].what
