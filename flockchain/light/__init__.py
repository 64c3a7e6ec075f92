"""The light client: the newest header, and any row of the state, without running a node and without trusting one.

    client = LightClient(FlockRules(genesis_hash), primary, witnesses, store, Options(trusting_period_ms))
    client.trust(height, block_id, now_ms)         # once, from a source that you believe
    newest = client.update(now_ms)                 # verified from there, compared with the witnesses
    row = read_row(client, primary, Account, address, now_ms=now_ms)

    refusals.py     why something is not believed: a typed sentence for each
    rules.py        what the predicates need to know of a chain; ours, and the seam for another's
    predicates.py   pure: does this light block follow from that one?
    client.py       bisection and witnesses over the port `Provider`
    stored.py       what is trusted, kept in a file
    proofs.py       one row of the state, or its absence, under a verified header

After "Light Client Specification" of Tendermint (Braithwaite et al., arXiv:2010.07031).
"""
