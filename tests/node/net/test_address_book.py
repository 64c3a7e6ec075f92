"""The address book without sockets: who can fill what, what is forgotten, what is told, what a restart keeps."""

import random
from pathlib import Path

import pytest

from flockchain.crypto import sha256
from flockchain.errors import Malformed, Refused
from flockchain.node.net.address_book import (
    BUCKET_SIZE,
    MAX_CONTACTS,
    NEW_BUCKETS_PER_SOURCE,
    NEW_FAILURES,
    TRIED_BUCKETS_PER_GROUP,
    AddressBook,
)
from flockchain.node.net.book_file import format_book, load_book, save_book
from flockchain.node.net.contacts import Contact, Scope, check_contact, make_contact, scope_of

SEED = 20_261_121
OWN = bytes(20)
NOW_S = 1_800_000_000.0


def make_book(seed: int = SEED) -> AddressBook:
    return AddressBook(OWN, sha256(b"secret", seed.to_bytes(8, "big")), random.Random(seed))


def peer(number: int) -> bytes:
    return sha256(b"peer", number.to_bytes(8, "big"))[:20]


def contact(number: int, host: str | None = None) -> Contact:
    """In a group of its own unless a host is given."""
    return make_contact(peer(number), host or f"{20 + number % 80}.{number // 80 % 250}.7.9", 26_600)


def public_ip(text: str) -> bytes:
    return make_contact(peer(0), text, 1).ip


def test_one_source_reaches_an_eighth_of_the_buckets_and_is_dialled_no_oftener() -> None:
    """A peer stuffs the book with 20,000 contacts of every group; 40 honest ones come from 40 sources after it."""
    print(f"seed {SEED}")
    book, liar = make_book(), public_ip("66.6.6.6")
    for number in range(20_000):
        book.add(contact(number), liar)
    stuffed = len(book)
    assert stuffed <= NEW_BUCKETS_PER_SOURCE * BUCKET_SIZE
    honest = {contact(30_000 + number) for number in range(40)}
    kept = {
        one
        for i, one in enumerate(sorted(honest, key=lambda c: c.peer))
        if book.add(one, public_ip(f"9{i % 10}.{i}.1.1"))
    }
    assert len(kept) >= 30
    drawn = [book.choose(NOW_S, (), ()) for _ in range(2_000)]
    share = sum(one in kept for one in drawn) / len(drawn)
    assert share > 0.6, f"honest contacts were chosen in {share:.0%} of draws, {len(kept)} of {len(book)} held"


def test_the_book_is_bounded_whatever_is_said_from_wherever() -> None:
    book, rng = make_book(), random.Random(SEED)
    for number in range(20_000):
        book.add(
            contact(number), rng.randbytes(4) if scope_of(rng.randbytes(4)) is Scope.WORLD else b"\x08\x08\x08\x08"
        )
    assert 800 < len(book) <= MAX_CONTACTS


def test_one_group_cannot_fill_the_verified_table() -> None:
    """An operator runs 2,000 real nodes in one /16, and all of them answer our dials."""
    book = make_book()
    honest = contact(1)
    book.note_success(honest, NOW_S)
    for number in range(2_000):
        book.note_success(contact(number, f"55.5.{number // 250}.{1 + number % 250}"), NOW_S + number)
    tried = [entry for entry in book if entry.is_tried]
    assert len(tried) <= TRIED_BUCKETS_PER_GROUP * BUCKET_SIZE + 1
    assert honest in {entry.contact for entry in tried}


def test_newcomers_take_no_place_but_of_what_failed() -> None:
    book, source = make_book(), public_ip("66.6.6.6")
    first = [one for one in (contact(number) for number in range(5_000)) if book.add(one, source)]
    failed = first[0]
    book.note_failure(failed, NOW_S)
    late = [one for one in (contact(number) for number in range(5_000, 10_000)) if book.add(one, source)]
    assert len(late) == 1
    assert failed not in book
    assert all(one in book for one in first[1:])


def test_fruitless_dials_wait_longer_each_time_and_end() -> None:
    book, one = make_book(), contact(1)
    book.add(one, one.ip)
    now_s = NOW_S
    for attempt in range(NEW_FAILURES):
        assert book.choose(now_s, (), ()) == one
        book.note_failure(one, now_s)
        if attempt < NEW_FAILURES - 1:
            assert book.choose(now_s + 4.9 * 2**attempt, (), ()) is None
        now_s += 10 * 2**attempt
    assert one not in book


def test_a_contact_that_answered_once_is_not_given_up_for_a_week() -> None:
    book, one = make_book(), contact(1)
    book.note_success(one, NOW_S)
    for _ in range(50):
        book.note_failure(one, NOW_S + 6 * 86_400)
    assert one in book
    book.note_failure(one, NOW_S + 8 * 86_400)
    assert one not in book


def test_who_had_no_room_is_not_counted_as_dead() -> None:
    book, one = make_book(), contact(1)
    book.add(one, one.ip)
    for _ in range(10):
        book.note_busy(one, NOW_S)
    assert book.choose(NOW_S + 60, (), ()) is None
    assert book.choose(NOW_S + 600, (), ()) == one


def test_no_two_outbound_peers_of_one_public_group_but_on_one_machine() -> None:
    book = make_book()
    public, local = contact(1, "55.5.1.1"), make_contact(peer(2), "127.0.0.1", 5)
    book.add(public, public.ip)
    assert book.choose(NOW_S, (), {public.ip[:2]}) is None
    assert book.choose(NOW_S, {public.peer}, ()) is None
    book.add(local, local.ip)
    assert book.choose(NOW_S, (), {public.ip[:2], local.ip[:2]}) == local


@pytest.mark.parametrize(
    ("host", "source", "is_taken"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.1", False),
        ("10.0.0.1", "55.5.5.5", False),
        ("10.0.0.1", "192.168.0.1", True),
        ("55.5.5.5", "10.0.0.1", True),
        ("fd00::1", "2001:4860::1", False),
    ],
)
def test_addresses_of_a_closed_network_are_not_taken_from_outside(host: str, source: str, is_taken: bool) -> None:
    assert make_book().add(contact(1, host), public_ip(source)) is is_taken


def test_a_node_never_notes_itself() -> None:
    book = make_book()
    own = make_contact(OWN, "55.5.5.5", 1)
    assert not book.add(own, own.ip)
    book.note_success(own, NOW_S)
    assert len(book) == 0


def test_hidden_peers_are_not_told() -> None:
    book = make_book()
    for number in range(40):
        book.add(contact(number), public_ip(f"9{number % 10}.{number}.1.1"))
    told = book.sample(100, {peer(3)})
    assert contact(3) in book
    assert len(told) == len(set(told)) == len(book) - 1
    assert contact(3) not in told
    assert len(book.sample(7, ())) == 7


@pytest.mark.parametrize("host", ["0.0.0.0", "224.0.0.1", "::", "ff02::1", "250.1.1.1"])
def test_addresses_that_nobody_has_are_refused(host: str) -> None:
    with pytest.raises(Malformed, match="nobody can be dialled"):
        make_contact(peer(1), host, 1)


def test_names_and_second_forms_are_refused() -> None:
    with pytest.raises(Refused, match="no IP address"):
        make_contact(peer(1), "example.org", 1)
    assert make_contact(peer(1), "::ffff:9.9.9.9", 1).ip == bytes([9] * 4)
    with pytest.raises(Malformed, match="IPv4 address in IPv6 form"):
        check_contact(Contact(peer(1), bytes(10) + b"\xff\xff" + bytes([9] * 4), 1))
    with pytest.raises(Malformed, match="not 5"):
        check_contact(Contact(peer(1), bytes(5), 1))


def test_a_restart_keeps_the_book(tmp_path: Path) -> None:
    book, path = make_book(), tmp_path / "peers.json"
    for number in range(300):
        book.add(contact(number), public_ip(f"9{number % 10}.{number % 200}.1.1"))
    book.note_success(contact(5), NOW_S)
    book.note_failure(contact(6), NOW_S)
    save_book(path, format_book(book))
    loaded = load_book(path, OWN, random.Random(SEED))

    def remembered(some: AddressBook) -> set[tuple[Contact, bytes, float, int]]:
        return {(e.contact, e.source_group, e.succeeded_s, e.failures) for e in some}

    assert remembered(loaded) == remembered(book)
    assert loaded.secret == book.secret
    assert not loaded.is_changed


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format":2,"secret":"","contacts":[]}', b"\xff\xfe"])
def test_a_damaged_book_is_set_aside_and_the_node_starts_with_none(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "peers.json"
    path.write_bytes(damage)
    assert len(load_book(path, OWN, random.Random(SEED))) == 0
    assert (tmp_path / "peers.json.damaged").read_bytes() == damage
