"""A file of an older schema becomes one of the present, whole or not at all; a newer one is left alone."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from flockchain.errors import Fault
from flockchain.store import chain_store, migrations, read_only
from flockchain.store.chain_store import ChainStore
from flockchain.store.migrations import migrate
from flockchain.store.reader import Reader
from flockchain.store.tables import SCHEMA_VERSION, metadata
from tests.store.history import GENESIS_BYTES, History

FIRST_TABLES = {"meta", "state_rows", "blocks", "txs", "receipts"}
NOTES = "CREATE TABLE notes (height INTEGER PRIMARY KEY, note TEXT NOT NULL)"


def add_table(connection: Connection) -> None:
    connection.execute(text(NOTES))


def fill_table(connection: Connection) -> None:
    connection.execute(text("INSERT INTO notes SELECT height, 'block ' || height FROM blocks"))


def fail(connection: Connection) -> None:
    connection.execute(text("INSERT INTO notes VALUES (1, 'again')"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed chain of three blocks."""
    file = tmp_path / "data" / "chain.sqlite"
    history = History()
    store = ChainStore(file)
    store.initialize(GENESIS_BYTES, history.genesis_rows)
    for _ in range(3):
        store.persist_block(*history.next_block())
    store.close()
    return file


def use(monkeypatch: pytest.MonkeyPatch, *steps: migrations.Step) -> None:
    """This program's schema is now so many versions further."""
    newest = SCHEMA_VERSION + len(steps)
    by_version = dict(enumerate(steps, start=SCHEMA_VERSION + 1))

    def migrate_so(connection: Connection, path: Path) -> tuple[int, int]:
        return migrate(connection, path, to=newest, steps=by_version)

    monkeypatch.setattr(chain_store, "migrate", migrate_so)
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", newest)
    assert read_only.check_current is migrations.check_current


def ask(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_the_writer_takes_every_step_in_order_and_keeps_the_chain(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, add_table, fill_table)
    with closing(ChainStore(path)) as store:
        assert store.height == 3
        assert store.genesis_bytes == GENESIS_BYTES
    assert ask(path, "SELECT note FROM notes") == [("block 1",), ("block 2",), ("block 3",)]
    assert ask(path, "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'schema_version'") == [
        (str(SCHEMA_VERSION + 2),)
    ]
    with closing(Reader(path)) as reader, reader.snapshot() as snapshot:
        assert snapshot.tip().height == 3


def test_a_migrated_file_is_not_migrated_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, add_table, fill_table)
    for _ in range(2):
        ChainStore(path).close()
    assert len(ask(path, "SELECT note FROM notes")) == 3
    assert ask(path, "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'schema_version'") == [
        (str(SCHEMA_VERSION + 2),)
    ]


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, add_table, fill_table, fail)
    before = path.read_bytes()
    with pytest.raises(Fault, match="UNIQUE constraint failed"):
        ChainStore(path)
    assert ask(path, "SELECT name FROM sqlite_master WHERE name = 'notes'") == []
    assert ask(path, "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'schema_version'") == [(str(SCHEMA_VERSION),)]
    assert path.read_bytes() == before
    monkeypatch.undo()
    ChainStore(path).close()


def test_a_reader_of_an_older_file_says_who_can_migrate_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, add_table)
    says = (
        f"schema version {SCHEMA_VERSION}, this program reads {SCHEMA_VERSION + 1}: run `flockchain start` on its home"
    )
    with pytest.raises(Fault, match=says):
        Reader(path)


def test_a_newer_file_is_refused_by_writer_and_reader_and_untouched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET value = CAST('99' AS BLOB) WHERE name = 'schema_version'")
        connection.commit()
    before = path.read_bytes()
    for opener in (ChainStore, Reader):
        with pytest.raises(Fault, match="a newer flockchain wrote this file and nothing in it was touched"):
            opener(path)
    assert path.read_bytes() == before


def test_a_file_of_another_program_is_named(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM meta WHERE name = 'schema_version'")
        connection.commit()
    with pytest.raises(Fault, match="this is no chain of flockchain"):
        ChainStore(path)


def test_every_real_step_leads_from_the_first_schema_to_the_present_tables(path: Path) -> None:
    """The oldest file that there was, without what came later, ends with the tables that a new file has."""
    fresh = sorted(ask(path, "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))
    with closing(sqlite3.connect(path)) as connection:
        for table in sorted(set(metadata.tables) - FIRST_TABLES):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE meta SET value = CAST('1' AS BLOB) WHERE name = 'schema_version'")
        connection.commit()
    ChainStore(path).close()
    assert sorted(ask(path, "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")) == fresh
