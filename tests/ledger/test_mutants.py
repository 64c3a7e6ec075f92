"""Tests of the tests: a planted bug in execution is found within a few short histories."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from flockchain.errors import Refused
from flockchain.execution import block, income, payout, phases, release, rounds, slashing, transactions
from flockchain.execution.context import Context
from flockchain.types.rows import Account, Unbonding
from tests.ledger.golden import BLOCKS, OPS
from tests.ledger.run import Finding, play

Patch = Callable[[pytest.MonkeyPatch], None]


def lose_what_is_slashed(patch: pytest.MonkeyPatch) -> None:
    """Slashed stake reaches nobody."""
    patch.setattr(slashing, "increase_community_pool", lambda state, amount: None)


def draw_from_memory(patch: pytest.MonkeyPatch) -> None:
    """A draw depends on how many this process has made: a node that restarted draws others."""
    real, made = rounds.compute_draw, [0]

    def draw(*args: Any, **options: Any) -> Any:
        made[0] += 1
        attempts, drawn = real(*args, **options)
        return attempts, drawn[made[0] % 2 :]

    patch.setattr(rounds, "compute_draw", draw)


def release_a_moment_late(patch: pytest.MonkeyPatch) -> None:
    """Unbonding ends after its time and not at it."""
    real = release.process_unbonding

    def process(context: Context) -> None:
        entry = context.state.first(Unbonding)
        if entry is None or entry.release_ms != context.time_ms:
            real(context)

    patch.setattr(block, "process_unbonding", process)


def forget_a_deadline(patch: pytest.MonkeyPatch) -> None:
    """TRAIN ends when all have submitted, and by no deadline."""
    real = phases._step

    def step(context: Context, task: Any, training_round: Any) -> bool:
        is_stuck = training_round.phase == "train" and not phases.has_everyone_acted(training_round)
        return not is_stuck and real(context, task, training_round)

    patch.setattr(phases, "_step", step)


def spend_the_nonce_of_what_expired(patch: pytest.MonkeyPatch) -> None:
    real = transactions._pay

    def pay(context: Context, parsed: Any) -> int:
        try:
            return real(context, parsed)
        except Refused as refusal:
            account = context.state.find(Account, parsed.tx.sender)
            if refusal.code == "expired" and account is not None:
                context.state.put(replace(account, nonce=account.nonce + 1))
            raise

    patch.setattr(transactions, "_pay", pay)


def mint_for_the_year(patch: pytest.MonkeyPatch) -> None:
    """Inflation rounds up: one uflk a block from nowhere, and declared."""
    real = income.compute_inflation_uflk
    patch.setattr(income, "compute_inflation_uflk", lambda chain, elapsed_ms: real(chain, elapsed_ms) + 1)


def refund_and_keep(patch: pytest.MonkeyPatch) -> None:
    """A task that ends gives its pool back one uflk too large."""
    real = payout.increase_balance
    patch.setattr(payout, "increase_balance", lambda state, to, amount: real(state, to, amount + 1))


MUTANTS: tuple[tuple[Patch, str], ...] = (
    (lose_what_is_slashed, "uflk appeared"),
    (draw_from_memory, "differ between two executions"),
    (release_a_moment_late, "are over and not released"),
    (forget_a_deadline, "goes on past its deadline"),
    (spend_the_nonce_of_what_expired, "expired spent the nonce"),
    (mint_for_the_year, "genesis and inflation make"),
    (refund_and_keep, "uflk appeared"),
)


def play_all() -> None:
    for seed in range(1, 9):
        play(seed, BLOCKS, OPS)


@pytest.mark.parametrize(("plant", "sentence"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_found(plant: Patch, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(Finding, match=sentence) as found:
        play_all()
    assert "replay: python -m tests.ledger --first" in str(found.value)
