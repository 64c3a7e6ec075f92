"""A whole ledger under random use: every transaction type, valid and not, over hundreds of blocks.

    dice.py        choices, from a seed or from hypothesis
    world.py       the chain under construction, executed twice in every block
    rules.py       what an actor may try, one rule for each transaction type: a new type is one more line in `RULES`
    choices.py     what rules choose among
    reports.py     evidence, for `slash`
    delegating.py  what delegates and delegators try
    changes.py     proposals to change the chain's own parameters
    duties.py      the rules of a training round's members
    spoil.py       how an attempt is made wrong in form, payment or sender
    checks.py      what holds after every block
    run.py         a history from a seed; `python -m tests.ledger` runs many

`test_machine.py` lets hypothesis choose, and shrink; `test_histories.py` runs seeds, golden ones among them.
"""
