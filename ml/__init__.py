"""Learning: tensors, files and floats. Knows nothing of chain, stake, keys, HTTP or SQL."""
