"""flockchain: a proof-of-stake ledger on which untrusted parties fine-tune one language model.

Source of the method: "Scaling Decentralized Learning with FLock", arXiv:2507.15349.
"""

__version__ = "0.1.0"
PROTOCOL_VERSION = 1
"""The newest rules of a chain that this software runs (`execution/upgrade.py`)."""
PEER_VERSION = 1
"""How nodes talk; the same on both sides of an upgrade of the chain, for they must go on talking."""
