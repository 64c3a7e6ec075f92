"""How `chain.sqlite` of an older schema becomes one of the present: step by step, in one transaction.

A change of `store/tables.py` raises `SCHEMA_VERSION` there and adds a file here, ``v<version>.py``, with
`migrate(connection)`, which turns the version before into this one in plain SQL: the tables of tables.py go on
changing, a step must not. What the chain itself holds (rows, blocks) never changes form: docs/decisions/0029.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import Connection, select, update

from flockchain.errors import Fault
from flockchain.store.tables import SCHEMA_VERSION, meta

Step = Callable[[Connection], None]


def _load() -> dict[int, Step]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {int(name[1:]): importlib.import_module(f"{__name__}.{name}").migrate for name in names}


STEPS: Mapping[int, Step] = _load()
"""By the version that each leads to."""


def read_schema_version(connection: Connection, path: Path) -> int:
    """Raises `Fault` for a file that no program of ours wrote."""
    found: bytes | None = connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version"))
    if found is None or not found.isdigit():
        raise Fault(f"{path}: this is no chain of flockchain (schema version {found!r}): name another home")
    return int(found)


def migrate(
    connection: Connection, path: Path, *, to: int = SCHEMA_VERSION, steps: Mapping[int, Step] = STEPS
) -> tuple[int, int]:
    """Bring the file to schema `to`, within the caller's transaction: all steps or none. Returns (found, now).

    Raises `Fault` when the file is newer than this program.
    """
    found = read_schema_version(connection, path)
    check_not_newer(found, path, to)
    for version in range(found + 1, to + 1):
        steps[version](connection)
    if found != to:
        connection.execute(update(meta).where(meta.c.name == "schema_version").values(value=str(to).encode()))
    return found, to


def check_current(connection: Connection, path: Path) -> None:
    """For readers, which cannot migrate: raise `Fault` unless the file has the present schema."""
    found = read_schema_version(connection, path)
    check_not_newer(found, path, SCHEMA_VERSION)
    if found < SCHEMA_VERSION:
        raise Fault(
            f"{path}: schema version {found}, this program reads {SCHEMA_VERSION}: run `flockchain start` on its home "
            "once, which brings the file up to date in one step that leaves the old or the new; "
            "a copy of data/ made before is the way back"
        )


def check_not_newer(found: int, path: Path, newest: int) -> None:
    if found > newest:
        raise Fault(
            f"{path}: schema version {found}, this program reads up to {newest}: a newer flockchain wrote this file "
            "and nothing in it was touched; install that version again, or restore the copy of data/ made before it"
        )
