"""Who can steer a draw, by how much, and at what price (docs/protocol.md, "Bias that remains").

    choices.py   real blocks: everything a proposer can do with its block, and the draw that comes of it
    game.py      the same game on beacons alone, for many seeds: strategies, their gain and their cost
    exact.py     exact chances of a draw's outcomes, to hold frequencies against

`python -m tests.randomness` prints the table of docs/protocol.md.
"""
