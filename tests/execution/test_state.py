"""Rows by key, a journal that can undo, a write set that says what changed."""

import random

import pytest

from flockchain.execution.state import State
from flockchain.types.rows import Account, Stake, TimeMark, row_key


def account(number: int, balance_uflk: int = 0) -> Account:
    return Account(number.to_bytes(20, "big"), balance_uflk, 0)


def test_a_rollback_undoes_puts_and_deletes() -> None:
    state = State([account(1, 5), account(2, 6)])
    before = list(state.rows())
    savepoint = state.savepoint()
    state.put(account(1, 7))
    state.put(account(3, 1))
    state.delete(Account, account(2).address)
    assert list(state.rows()) == [account(1, 7), account(3, 1)]
    state.rollback(savepoint)
    assert list(state.rows()) == before
    assert state.savepoint() == 0


def test_an_inner_rollback_keeps_the_outer_writes() -> None:
    state = State()
    state.put(account(1, 1))
    savepoint = state.savepoint()
    state.put(account(1, 2))
    state.rollback(savepoint)
    assert state.get(Account, account(1).address) == account(1, 1)


def test_changes_name_the_first_old_and_the_last_new_row() -> None:
    state = State([account(1, 5), account(2, 6)])
    state.put(account(1, 6))
    state.put(account(1, 7))
    state.delete(Account, account(2).address)
    state.put(account(3, 1))
    assert state.peek_changes() == [
        (row_key(account(1)), account(1, 5), account(1, 7)),
        (row_key(account(2)), account(2, 6), None),
        (row_key(account(3)), None, account(3, 1)),
    ]
    state.clear_journal()
    assert state.peek_changes() == []


def test_an_equal_row_is_no_change() -> None:
    state = State([account(1, 5)])
    state.put(account(1, 5))
    assert state.savepoint() == 0


def test_rows_iterate_by_prefix_in_key_order() -> None:
    def stake(owner: int, target: str) -> Stake:
        return Stake(owner.to_bytes(20, "big"), target, 1, "", (), False, 0, 0)

    rows = [stake(1, "task:1"), stake(1, "task:2"), stake(2, "task:1")]
    state = State([account(1), *reversed(rows)])
    assert list(state.iterate(Stake)) == rows
    assert list(state.iterate(Stake, rows[0].owner)) == rows[:2]
    assert state.first(Stake, rows[2].owner) == rows[2]
    assert state.first(Stake, bytes(20)) is None


def test_the_last_row_until_a_key() -> None:
    state = State([account(1), TimeMark(3, 30), TimeMark(7, 70)])
    assert state.last_until(TimeMark, 2) is None
    assert state.last_until(TimeMark, 3) == TimeMark(3, 30)
    assert state.last_until(TimeMark, 6) == TimeMark(3, 30)
    assert state.last_until(TimeMark, 900) == TimeMark(7, 70)


def test_a_missing_row_that_we_know_to_exist_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="no Account with key"):
        State().get(Account, bytes(20))


def test_random_writes_and_rollbacks_equal_a_plain_dictionary() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    state, model, marks = State(), dict[bytes, Account](), list[tuple[int, dict[bytes, Account]]]()
    for _ in range(2_000):
        row = account(dice.randrange(20), dice.randrange(5))
        match dice.randrange(5):
            case 0:
                marks.append((state.savepoint(), dict(model)))
            case 1 if marks:
                savepoint, model = marks.pop(dice.randrange(len(marks)))
                marks = [mark for mark in marks if mark[0] <= savepoint]
                state.rollback(savepoint)
            case 2 if row_key(row) in model:
                state.delete(Account, row.address)
                del model[row_key(row)]
            case _:
                state.put(row)
                model[row_key(row)] = row
        assert list(state.rows()) == [model[key] for key in sorted(model)]
