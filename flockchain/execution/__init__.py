"""The deterministic state transition: integers, sorted iteration, no clock, no randomness, no I/O."""
