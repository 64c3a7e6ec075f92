"""Validator sets of every height, for light clients: the state forgets a set once its height is decided.

A set is stored when it differs from the one before, and goes on until the next one begins.
"""

from sqlalchemy import Connection, LargeBinary, desc, insert, literal, select

from flockchain.codec import decode, encode
from flockchain.store.tables import validator_sets
from flockchain.types.chain import Validator
from flockchain.types.rows import ValidatorSet

Validators = tuple[Validator, ...]


def write_set(connection: Connection, row: ValidatorSet) -> None:
    """Keep the set of a height above all stored ones, if it is a new one."""
    members = encode(tuple(Validator(m.address, m.public_key, m.power) for m in row.members))
    newest = select(validator_sets.c.members).order_by(desc(validator_sets.c.height)).limit(1).scalar_subquery()
    given = literal(members, LargeBinary)
    values = select(literal(row.height), given).where(given.is_distinct_from(newest))
    connection.execute(insert(validator_sets).from_select(["height", "members"], values))


def read_set(connection: Connection, height: int) -> Validators | None:
    """Who signs a height up to the second after the newest block; None when this file does not reach so far back."""
    query = select(validator_sets.c.members).where(validator_sets.c.height <= height)
    found: bytes | None = connection.scalar(query.order_by(desc(validator_sets.c.height)).limit(1))
    return None if found is None else decode(Validators, found)
