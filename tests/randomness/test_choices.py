"""On real blocks, between the freeze and the draw, a proposer has one choice that matters: its block or none."""

import pytest

from flockchain.types.tx import OK
from tests.randomness.choices import Position, make_choices, make_position

SEEDS = range(4)


def play(position: Position, *rounds: int) -> Position:
    """Honest blocks up to the draw, each decided in the given consensus round; the earlier proposers skipped theirs."""
    fork = position.fork()
    for round in rounds:
        fork.produce(proposer=fork.proposer(round))
    assert fork.draw.beacon
    return fork


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_in_the_last_block_before_a_draw_changes_it(seed: int) -> None:
    """Contents, order, time, carried votes, its beacon head, its own bonds: every choice gives the same draw."""
    position = make_position(seed)
    position.produce(proposer=position.proposer())
    honest = play(position, 0).draw
    tried = 0
    for name, block in make_choices(position, position.proposer()):
        fork = position.fork()
        outcome = fork.decide(block)
        assert {result.code for result in outcome.results} <= {OK, "drawn"}, name
        assert fork.draw == honest, f"{name} gives another draw"
        tried += 1
    assert tried >= 16


def test_nothing_in_the_two_blocks_before_a_draw_changes_it() -> None:
    """One proposer of both: every pair of choices."""
    position = make_position(0)
    honest = play(position, 0, 0).draw
    for name, block in make_choices(position, position.proposer()):
        fork = position.fork()
        fork.decide(block)
        for other, last in make_choices(fork, fork.proposer()):
            final = fork.fork()
            final.decide(last)
            assert final.draw == honest, f"{name}, then {other}, give another draw"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_skipped_block_gives_another_draw_that_its_proposer_could_not_know(seed: int) -> None:
    """It depends on the link of the next round's proposer, which nobody else holds."""
    position = make_position(seed)
    draws = {rounds: play(position, *rounds).draw for rounds in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert len({draw.beacon for draw in draws.values()}) == 4
    assert len({draw.candidates for draw in draws.values()}) == 1
    position.produce(proposer=position.proposer())
    skipping, next_one = position.proposer(0), position.proposer(1)
    assert skipping != next_one
    link = position.beacon_preimage(position.validator(next_one).address, position.chain.height + 1)
    assert play(position, 1).blocks[-1].header.beacon_preimage == link


def test_a_skipped_block_costs_its_proposer_the_block_and_no_income() -> None:
    """Income is for signing, not for proposing: docs/protocol.md says so where it states the bias."""
    position = make_position(0)
    position.produce(proposer=position.proposer())
    attacker = position.proposer(0)
    incomes = []
    for round in (0, 1):
        fork = play(position, round)
        fork.produce(proposer=fork.proposer())
        incomes.append(fork.validator(attacker).income_uflk)
    assert incomes[0] == incomes[1] > 0


def test_a_new_beacon_head_cannot_reach_a_draw_that_is_frozen() -> None:
    """It is in force `beacon_delay_blocks` later, ten times as far ahead as a draw."""
    position = make_position(0)
    assert position.chain.params.stake.beacon_delay_blocks >= 10 * (position.draw.draw_height - position.chain.height)
