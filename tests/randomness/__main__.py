"""`python -m tests.randomness`: the table of who can steer a draw, as it stands in docs/protocol.md."""

from tests.randomness.table import make_table

if __name__ == "__main__":
    print(make_table())
