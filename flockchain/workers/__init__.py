"""Participants of a task: trainer, voter and attester. Separate processes, so a GPU hour never delays a prevote.

The only room that sees both the chain (through `flockchain.client`) and the learning code (`ml`).
"""
