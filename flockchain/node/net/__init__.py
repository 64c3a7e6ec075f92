"""Peers over TCP: authenticated and encrypted connections, bounded in every size, rate and wait.

    network     TcpNetwork, the real `Network` port: who is connected, who may be
    dialer      keeps one persistent peer connected
    seeker      finds further peers: asks, dials, remembers
    exchange    questions for contacts and their answers (sans-I/O)
    address_book, book_file, contacts   whom this node may dial (sans-I/O), kept, named
    connection  one TCP connection: handshake, then prioritised messages
    handshake   proves node keys and agrees session keys (sans-I/O)
    framing     messages of channels in sealed frames (sans-I/O)
    sealing     one direction of the encrypted stream (sans-I/O)
    send_queue  what waits to be sent, most urgent first (sans-I/O)
    liveness    every wait for the other side (sans-I/O)
    limits      every number above, and the token bucket
    peers       addresses of peers, their misbehaviour, what the API shows

Sans-I/O files take bytes and time as arguments and touch no socket, so that they can be fuzzed.
"""
