"""A failure at every I/O call in turn, and what an operator reads when a file or a disk is in the way."""
