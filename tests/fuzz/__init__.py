"""Seeded fuzzing of everything that reads a stranger's bytes.

corpus    true messages, harvested from four nodes that decide blocks
mutate    what turns true bytes into untrue ones
targets   handshake, frames, decoders, a live node: what is fed, and what must hold
__main__  python -m tests.fuzz --frames 1000000
"""
