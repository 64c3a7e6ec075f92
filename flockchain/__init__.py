"""flockchain: a proof-of-stake ledger on which untrusted parties fine-tune one language model.

Source of the method: "Scaling Decentralized Learning with FLock", arXiv:2507.15349.
"""

__version__ = "0.1.0"
PROTOCOL_VERSION = 1
