"""Version 2: validator sets by height, for light clients.

Files of version 1 may have the table already: it came without a version of its own. Sets of blocks that are stored
are not in the file any more; the table begins with the next block.
"""

from sqlalchemy import Connection, text


def migrate(connection: Connection) -> None:
    connection.execute(
        text(
            "CREATE TABLE IF NOT EXISTS validator_sets "
            "(height INTEGER NOT NULL, members BLOB NOT NULL, PRIMARY KEY (height))"
        )
    )
