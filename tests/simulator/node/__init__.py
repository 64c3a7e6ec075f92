"""The simulator of the real node: its loop, mempool, builder, log, signer, sync and gossip on a virtual world.

    python -m tests.simulator --app node --seeds 10000                 many networks, on all cores
    python -m tests.simulator --app node --first 47 --seeds 1 --n 5 --trace
    python -m tests.simulator --app split --seeds 100                  more than a third faulty: each must fork
    python -m tests.simulator --mutants                                how many seeds each planted bug survives

One seed is one network of `Node` objects over simulated ports; everything else is production code. Seeded by (seed, n)
and drawn with `getrandbits` alone, so a seed does the same in every version of Python; the hash over its event log says
so (`golden.json`).

    world.py       one network from its first event to the end       scenario.py    what will happen to it
    machine.py     one honest node: its ports, life and death        network.py     links, loss, delay, cuts, bans
    disk.py        log and signer state, synced or not               stores.py      blocks and rows, whole or not at all
    adversary.py   the faulty validators and their keys              plots.py       what they do at a height
    isolation.py   plots around an end that not all hear of: double signatures, amnesia, a fall at the worst moment
    heckler.py     a peer without a key that lies and sends garbage  invariants.py  what must never happen
    split_brain.py the control: too many faulty ones fork the chain  mutants/       planted bugs
    timeline.py    virtual time and the event log                    clients.py     transactions: payments, last wishes
    outcome.py     what a seed was                                   run.py         what is installed around a seed

**Phases.** Safety: until an honest node has decided six heights or 20 virtual seconds have passed. Liveness: everything
heals, clocks are set right, and every honest node must decide three further heights; a transaction given to each must
be included, and who equivocates in plain sight must be tombstoned.
"""
