"""Delegation to a participant of a task: it is drawn, slashed and paid with the bond, as frozen for the draw."""

from msgspec.structs import replace

from flockchain.execution.context import Context
from flockchain.execution.delegation import get_delegation, get_pool
from flockchain.execution.rounds import find_candidates
from flockchain.params import UFLK_PER_FLK
from flockchain.txs import claim_rewards, leave_task, stake, unstake
from flockchain.types.delegation import compute_earned_uflk, compute_worth_uflk
from flockchain.types.rows import Delegation, DelegationPool, Draw, Unbonding
from tests.support.rounds import Story, make_spec

FLK = UFLK_PER_FLK


def to(story: Story, delegate: str, amount_uflk: int) -> stake.Body:
    return stake.Body(story.target, amount_uflk, delegate=story.addresses[delegate])


def offer(story: Story, share_ppm: int) -> stake.Body:
    return stake.Body(story.target, 0, share_ppm=share_ppm)


def pool_of(story: Story, delegate: str) -> DelegationPool:
    pool = get_pool(story.state, story.addresses[delegate], story.target)
    assert pool is not None
    return pool


def row_of(story: Story, delegate: str, delegator: str) -> Delegation:
    row = get_delegation(story.state, story.addresses[delegate], story.target, story.addresses[delegator])
    assert row is not None
    return row


def earned_of(story: Story, delegate: str, delegator: str) -> int:
    return compute_earned_uflk(pool_of(story, delegate), row_of(story, delegate, delegator))


def worth_of(story: Story, delegate: str, delegator: str) -> int:
    return compute_worth_uflk(pool_of(story, delegate), row_of(story, delegate, delegator).shares)


def make_story(delegate: str = "trainer0", share_ppm: int = 500_000) -> Story:
    """Bonds of 100 FLK each; before the draw a stranger adds 100 FLK to the delegate's."""
    story = Story(enroll=False)
    story.enroll([*story.trainers, *story.judges[:-1]])
    story.must(delegate, offer(story, share_ppm))
    story.must("stranger", to(story, delegate, 100 * FLK))
    story.enroll(story.judges[-1:])
    return story


def candidate_bonds(story: Story, role: str) -> dict[str, tuple[int, int]]:
    draw = story.state.get(Draw, story.task_id, 1, role)
    return {story.names[c.address]: (c.bond_uflk, c.tickets) for c in draw.candidates}


def test_golden_reward_of_a_round() -> None:
    """By hand: round 1 of 3 shares 300 FLK, 210 of them among the trainers by bonds of 200, 100, 100, 100 FLK.
    Trainer 0 earns 84; half of its bond is delegated, and it gives half of that: 21 FLK. Who joined in TRAIN: nothing.
    """
    story = make_story()
    story.wait_draw()
    story.must("creator", to(story, "trainer0", 300 * FLK))
    before = {name: story.balance(name) for name in story.trainers}
    settled = story.play_round()
    assert settled.outcome.startswith("aggregated")
    assert {story.names[v.trainer]: v.reward_uflk for v in settled.verdicts}["trainer0"] == 84 * FLK
    assert story.balance("trainer0") - before["trainer0"] == 63 * FLK
    assert story.balance("trainer1") - before["trainer1"] == 42 * FLK
    assert earned_of(story, "trainer0", "stranger") == 21 * FLK
    assert earned_of(story, "trainer0", "creator") == 0
    receipt = next(r for r in story.receipts if r.kind == "reward" and r.account == story.addresses["trainer0"])
    facts = {fact.name: fact.value for fact in receipt.facts}
    assert (receipt.amount_uflk, facts["delegators_uflk"]) == (84 * FLK, 21 * FLK)
    wallet = story.balance("stranger")
    story.must("stranger", claim_rewards.Body(delegate=story.addresses["trainer0"], target=story.target))
    assert story.balance("stranger") == wallet + 21 * FLK


def test_golden_penalty_of_a_round() -> None:
    """By hand: a rejected adapter costs 10 %: 10 FLK of the own bond, 10 of the stranger's, none of a latecomer's,
    and 5 of the 50 FLK that a delegator took out in TRAIN, when they stood for the round already.
    """
    story = Story(enroll=False)
    story.enroll([*story.trainers, *story.judges[:-1]])
    story.must("trainer0", offer(story, 500_000))
    story.must("stranger", to(story, "trainer0", 150 * FLK))
    story.enroll(story.judges[-1:])
    story.wait_draw()
    story.must("creator", to(story, "trainer0", 300 * FLK))
    body = unstake.Body(story.target, 50 * FLK, story.addresses["trainer0"])
    story.must("stranger", body)
    settled = story.play_round(bad=("trainer0",))
    verdict = next(v for v in settled.verdicts if story.names[v.trainer] == "trainer0")
    assert (verdict.outcome, verdict.slashed_uflk) == ("reject", 25 * FLK)
    assert story.bond("trainer0") == 90 * FLK
    entry = story.state.first(Unbonding)
    assert entry is not None
    assert entry.amount_uflk == 45 * FLK
    assert worth_of(story, "trainer0", "stranger") in (90 * FLK, 90 * FLK + 1)
    assert worth_of(story, "trainer0", "creator") in (300 * FLK, 300 * FLK - 1)


def test_a_judges_reward_is_shared_too() -> None:
    """90 FLK for three seats, 30 each; half of judge 0's bond is delegated, and all of what it earns is given."""
    story = make_story("judge0", 1_000_000)
    assert story.play_round().outcome.startswith("aggregated")
    assert earned_of(story, "judge0", "stranger") == 15 * FLK


def test_delegations_count_as_tickets() -> None:
    """200 FLK are 20 tickets of 10 FLK; the trainers' bonds of 100 FLK are 10."""
    story = make_story()
    assert candidate_bonds(story, "trainer") == {
        "trainer0": (200 * FLK, 20),
        "trainer1": (100 * FLK, 10),
        "trainer2": (100 * FLK, 10),
        "trainer3": (100 * FLK, 10),
    }


def test_a_participants_minimum_is_its_own_money() -> None:
    """A bond that fell below the task's minimum is not drawn again, whatever is delegated to it."""
    story = make_story()
    spec = make_spec()
    own = story.stake_of("trainer0")
    story.play_round()
    context = Context(story.state, story.height + 1, story.time_ms, proposer=b"")
    assert own.owner in {candidate.address for candidate in find_candidates(context, story.task, "trainer")}
    story.state.put(replace(story.stake_of("trainer0"), amount_uflk=spec.min_bond_uflk - 1))
    assert own.owner not in {candidate.address for candidate in find_candidates(context, story.task, "trainer")}


def test_who_is_leaving_takes_no_delegation() -> None:
    story = make_story()
    story.must("trainer0", leave_task.Body(story.task_id))
    assert "has no bond in task:1, or is leaving it" in story.block(("creator", to(story, "trainer0", FLK)))[0]


def test_a_delegator_may_leave_while_its_delegate_is_drawn() -> None:
    """Unlike the delegate, who owes the round; the stake stays slashable in the queue."""
    story = make_story()
    story.wait_draw()
    story.must("stranger", unstake.Body(story.target, 100 * FLK, story.addresses["trainer0"]))
    assert "is drawn in the current round" in story.block(("trainer0", unstake.Body(story.target, 100 * FLK)))[0]
