"""All side effects: one loop over five ports (clock, network, store, signer, blobs)."""
