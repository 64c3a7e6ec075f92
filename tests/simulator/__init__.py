"""A deterministic simulator: real consensus cores, and the real execution if asked for, on a virtual network.

    python -m tests.simulator --seeds 10000                           many networks, on all cores
    python -m tests.simulator --seeds 100 --app chain                 the same over real blocks
    python -m tests.simulator --first 4711 --seeds 1 --n 5 --trace    one network, every step printed

One seed is one network of 4, 5 or 7 validators with unequal powers, one of which equivocates, and ten heights, at
some of which a validator is stronger or not in the set. All randomness is seeded by (seed, n); the clock is a heap of
events; so a seed always does the same.

**Phases.** Safety: until the first honest node has decided seven heights or half a minute (virtual) has passed, faults
are on. Liveness: then everything heals, and every honest node must reach height ten. The equivocator stays one: in half
of the seeds it goes on, in the other half it falls silent, and the rest must do without it.

**Faults** (`faults.py`). Loss, delay with a long tail, duplication, reordering, partitions; crashes between any two
steps of "log, fsync, sign, fsync, send", where what was not fsynced is lost, and restarts by replay.

**The equivocator** (`equivocator.py`) has less than a third of the power, sees every message before it is delivered,
and in the safety phase also schedules the network. Undirected chaos rarely meets the few orders of events in which a
rule matters, so it follows a plot at each height:

    Noise             random conflicting votes and proposals, valid_round lies, invalid values, silence
    IsolateDeciders   let a few nodes decide unseen, then lead the others (who must be locked) to another value
    Straddle          cut the network in two, tell each half another story, vote in both

**Invariants** (`invariants.py`), checked at every step: agreement; validity; a decision has distinct precommits of more
than two thirds; locks only grow, through crashes too; no honest node's signature leaves for two values of one height,
round and step; evidence convicts the equivocator alone; equal state roots. In the end: everyone at height ten.

**Tests of the tests** (`mutants.py`): broken consensus rules, each of which must be caught within a stated number
of seeds.

The application is anything with `App`'s four functions (`app.py`): a hash chain, because it is fast, or the real
execution (`chain_app.py`).
"""
