"""The node: its loop, its ports, its peers."""
