"""Validator sets of every height, for light clients: the state forgets a set once its height is decided.

A set is stored when it differs from the one before, and goes on until the next one begins.
"""

from sqlalchemy import Connection, Insert, Integer, LargeBinary, bindparam, desc, insert, select

from flockchain.codec import decode, encode
from flockchain.store.tables import validator_sets
from flockchain.types.chain import Validator
from flockchain.types.rows import ValidatorSet

Validators = tuple[Validator, ...]


def write_set(connection: Connection, row: ValidatorSet) -> None:
    """Keep the set of a height above all stored ones, if it is a new one."""
    members = encode(tuple(Validator(m.address, m.public_key, m.power) for m in row.members))
    connection.execute(_KEEP_NEW, {"new_height": row.height, "new_members": members})


def _make_keep_new() -> Insert:
    """Built once: building a statement costs more than running it, and every block runs this one."""
    newest = select(validator_sets.c.members).order_by(desc(validator_sets.c.height)).limit(1).scalar_subquery()
    given = bindparam("new_members", type_=LargeBinary)
    values = select(bindparam("new_height", type_=Integer), given).where(given.is_distinct_from(newest))
    return insert(validator_sets).from_select(["height", "members"], values)


_KEEP_NEW = _make_keep_new()


def read_set(connection: Connection, height: int) -> Validators | None:
    """Who signs a height up to the second after the newest block; None when this file does not reach so far back."""
    query = select(validator_sets.c.members).where(validator_sets.c.height <= height)
    found: bytes | None = connection.scalar(query.order_by(desc(validator_sets.c.height)).limit(1))
    return None if found is None else decode(Validators, found)
