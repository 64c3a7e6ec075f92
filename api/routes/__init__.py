"""One file per resource: a router, and a read through one snapshot."""
