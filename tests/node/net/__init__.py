"""Peers over TCP: sealed streams, handshake, framing, and networks on real sockets."""
