"""Addresses of peers as people write them, and the memory of misbehaviour."""

import pytest

from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.node.net.peers import MAX_REMEMBERED, PeerAddress, PenaltyBook, is_loopback, parse_peer_address

from .loopback import id_of


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("example.org:26600", PeerAddress("example.org", 26_600)),
        ("[::1]:26600", PeerAddress("::1", 26_600)),
        (f"{format_address(id_of(1))}@10.0.0.1:1", PeerAddress("10.0.0.1", 1, id_of(1))),
    ],
)
def test_an_address_is_read(text: str, address: PeerAddress) -> None:
    assert parse_peer_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:x", "host:65536", "host:-1", "flk1wrong@host:1", "h:²"]
)
def test_a_broken_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(Refused, match="address"):
        parse_peer_address(text)


def test_loopback_in_both_families() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "10.0.0.1", "fe80::1%eth0", "")] == [
        True,
        True,
        *[False] * 3,
    ]


def test_points_add_up_and_are_forgiven() -> None:
    book: PenaltyBook[str] = PenaltyBook(ban_s=60.0, forgive_points_per_s=1.0)
    assert not book.add("a", 90, "first", 0.0)
    assert book.points("a", 30.0) == 60
    assert not book.add("a", 39, "second", 30.0)
    assert book.add("a", 1, "third", 30.0)
    with pytest.raises(Refused, match="banned for another 60 s: third"):
        book.check("a", 30.5)
    book.check("a", 90.0)
    book.check("b", 30.5)


def test_misbehaviour_while_banned_does_not_hide_the_reason() -> None:
    book: PenaltyBook[str] = PenaltyBook(ban_s=60.0, forgive_points_per_s=1.0)
    assert book.add("a", 100, "the reason", 0.0)
    assert not book.add("a", 100, "more", 1.0)
    with pytest.raises(Refused, match="another 59 s: the reason"):
        book.check("a", 1.0)


def test_the_book_has_a_last_page() -> None:
    book: PenaltyBook[int] = PenaltyBook(ban_s=60.0, forgive_points_per_s=1.0)
    for key in range(MAX_REMEMBERED + 1):
        book.add(key, 5, "small", 0.0)
    assert (book.points(0, 0.0), book.points(1, 0.0)) == (0, 5)


def test_the_time_left_of_a_ban_is_never_more_than_the_ban() -> None:
    for now_s in (0.0, 0.1, 7.3, 1e5 + 0.7, 1e6 + 1 / 3):
        book: PenaltyBook[str] = PenaltyBook(ban_s=600.0, forgive_points_per_s=1.0)
        book.add("peer", 100, "no reason", now_s)
        with pytest.raises(Refused, match="banned for another 600 s: no reason"):
            book.check("peer", now_s)
        with pytest.raises(Refused, match="banned for another 1 s: no reason"):
            book.check("peer", now_s + 599.9999)
