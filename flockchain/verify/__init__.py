"""`flockchain verify`: a stored chain recomputed from genesis, and every difference named.

replay.py     every header, certificate, transaction, result, receipt and root, block by block
rounds.py     every draw from the blocks' own preimages, every seal, verdict and payment
adapters.py   every coefficient and global adapter, from the bytes (numpy, no torch)
stored.py     how a stored value differs from the recomputed one, as a sentence
audit.py      the order of things: `verify_home`
"""
