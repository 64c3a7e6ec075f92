"""Tendermint consensus as a pure core: events in, effects out.

    messages   proposals, votes, certificates: what validators say to each other
    powers     who votes with how much power, and what counts as enough
    events     everything that can happen to a core
    effects    everything a core can ask its node to do
    proposals  the proposal keeper: what was proposed, and how the node judged it
    votes      the vote keeper: who voted for what, and which thresholds that reaches
    machine    the pure round state machine: Algorithm 1, each arm with the paper's line
    core       the driver: feeds thresholds of the keeper to the machine

A block is an opaque 32-byte value id in here, votes carry no signatures, and time exists only as named timeouts.
Source: Buchman, Kwon, Milosevic, "The latest gossip on BFT consensus", arXiv:1807.04938, Algorithm 1, split the way
Malachite splits it.
"""
