"""Bytes that a chain holds must stay readable: no struct or table changes form (docs/decisions, 29)."""

import pytest

from flockchain import PROTOCOL_VERSION
from flockchain.codec import Canonical
from flockchain.execution.upgrade import get_supported_versions
from flockchain.store.migrations import STEPS
from flockchain.store.tables import SCHEMA_VERSION
from flockchain.types import ids
from flockchain.types import stake_rows as rows
from flockchain.types.rows import TABLES
from tests.fixtures.layouts import GOLDEN, describe_all


def read_golden() -> list[str]:
    return GOLDEN.read_text(encoding="utf-8").splitlines()


def test_no_layout_of_the_listing_has_changed() -> None:
    """What fails here makes chains of earlier commits unreadable: put the new fact into a new struct and table."""
    now = set(describe_all())
    assert [line for line in read_golden() if line not in now] == []


def test_every_layout_is_listed() -> None:
    """A new struct or table: `python -m tests.fixtures.layouts` lists it. From then on it may not change."""
    known = set(read_golden())
    assert [line for line in describe_all() if line not in known] == []


def test_one_more_field_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Account(Canonical, frozen=True):
        address: ids.Address
        balance_uflk: ids.Uflk
        nonce: ids.UInt
        memo: ids.Text = ""

    Account.__module__ = rows.__name__
    monkeypatch.setattr(rows, "Account", Account)
    now = set(describe_all())
    changed = [line for line in read_golden() if line not in now]
    assert [line.partition("(")[0] for line in changed] == ["struct types.stake_rows.Account"]


def test_tags_and_names_serve_once() -> None:
    assert (
        len({table.tag for table in TABLES.values()}) == len({table.name for table in TABLES.values()}) == len(TABLES)
    )


def test_each_schema_version_has_its_step_and_the_newest_protocol_version_its_name() -> None:
    assert sorted(STEPS) == list(range(2, SCHEMA_VERSION + 1))
    assert max(get_supported_versions()) == PROTOCOL_VERSION
