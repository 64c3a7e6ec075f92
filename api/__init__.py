"""REST over the read-only store, and one way in: `submit(tx_bytes)`. The paths are listed at `/docs`."""
