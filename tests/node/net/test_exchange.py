"""Peer exchange on real sockets: whoever knows one node finds the others, and is told nothing that it did not ask."""

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from flockchain.codec import encode
from flockchain.errors import Refused
from flockchain.node.net.book_file import load_book
from flockchain.node.net.contacts import Contact, make_contact
from flockchain.node.net.exchange import MAX_CONTACTS_TOLD, ContactRequest, Contacts, Exchange
from flockchain.node.net.framing import EXCHANGE_CHANNEL, cut_frame
from flockchain.node.net.seeker import Discovery, Seeker

from .loopback import QUICK, Party, id_of, party, raw_peer, raw_socket, run, wait_until

EAGER = replace(QUICK, seek_interval_s=0.02, ask_interval_s=0.2, check_interval_s=0.05, save_book_s=0.05)
OPEN = Discovery(book_path=None)


def seeker_of(node: Party) -> Seeker:
    assert node.network._seeker is not None
    return node.network._seeker


def contact_of(number: int, port: int) -> Contact:
    return make_contact(id_of(number), "127.0.0.1", port)


def test_seven_nodes_that_each_know_only_the_first_find_each_other() -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(party(1, limits=EAGER, discovery=OPEN))
            nodes = [first]
            for number in range(2, 8):
                node = party(number, first.address, limits=EAGER, discovery=OPEN)
                nodes.append(await stack.enter_async_context(node))
            await wait_until(lambda: all(len(node.network.peers()) >= 4 for node in nodes))

    run(story)


def test_a_seed_is_enough_and_the_book_outlives_it(tmp_path: Path) -> None:
    """The seed is dialled once; after a restart without any seed the node finds its peers from its own file."""

    async def story() -> None:
        path = tmp_path / f"{asyncio.get_running_loop().__class__.__module__}.json"
        async with (
            party(1, limits=EAGER, discovery=OPEN) as seed,
            party(2, seed.address, limits=EAGER, discovery=OPEN) as other,
        ):
            await wait_until(lambda: len(seeker_of(seed).book) == 1)
            seeded = Discovery(book_path=path, seeds=(seed.address,))
            async with party(3, listen=None, limits=EAGER, discovery=seeded) as node:
                await wait_until(lambda: set(node.network.peers()) == {seed.id, other.id})
            await wait_until(lambda: other.network.peers() == [seed.id])
            async with party(3, listen=None, limits=EAGER, discovery=Discovery(book_path=path)) as node:
                await wait_until(lambda: other.id in node.network.peers())

    run(story)


def test_a_book_that_is_being_written_when_the_node_stops_is_written_whole(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / f"{asyncio.get_running_loop().__class__.__module__}.json"
        hasty = replace(EAGER, seek_interval_s=0.0001, save_book_s=0.0)
        for number in range(20):
            async with party(1, limits=hasty, discovery=Discovery(book_path=path)) as node:
                for port in range(1, 6):
                    seeker_of(node).book.add(make_contact(id_of(2), f"10.{number}.0.1", port), bytes((127, 0, 0, 1)))
                    await asyncio.sleep(0)
        assert not path.with_name(path.name + ".damaged").exists()
        assert len(load_book(path, id_of(1), random.Random(1))) >= 20

    run(story)


def test_no_more_connections_are_opened_than_wanted() -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(party(1, limits=EAGER, discovery=OPEN))
            for number in range(2, 7):
                await stack.enter_async_context(party(number, first.address, limits=EAGER, discovery=OPEN))
            modest = replace(OPEN, target_outbound=2)
            node = await stack.enter_async_context(party(7, first.address, limits=EAGER, discovery=modest))
            await wait_until(lambda: len(seeker_of(node).book) >= 5)
            await wait_until(lambda: any(entry.is_tried for entry in seeker_of(node).book))

            def outbound() -> int:
                return sum(info.is_outbound for info in node.network.peer_infos())

            for _ in range(20):
                assert outbound() <= 2
                await asyncio.sleep(0.01)

    run(story)


def test_a_private_peer_is_told_to_nobody() -> None:
    async def story() -> None:
        sentry = replace(OPEN, private_peers=frozenset({id_of(2)}))
        async with (
            party(1, limits=EAGER, discovery=sentry) as first,
            party(2, first.address, limits=EAGER, discovery=replace(OPEN, target_outbound=0)),
            party(3, first.address, limits=EAGER, discovery=OPEN) as third,
            party(4, first.address, limits=EAGER, discovery=OPEN) as fourth,
        ):
            await wait_until(lambda: third.id in fourth.network.peers() or fourth.id in third.network.peers())
            await wait_until(lambda: len(seeker_of(first).book) == 3)
            for node in (third, fourth):
                assert id_of(2) not in {entry.contact.peer for entry in seeker_of(node).book}

    run(story)


def test_a_lost_peer_is_dialled_again_from_the_book() -> None:
    async def story() -> None:
        async with (
            party(1, limits=EAGER, discovery=OPEN) as seed,
            party(2, limits=EAGER, discovery=replace(OPEN, seeds=(seed.address,))) as node,
        ):
            await wait_until(lambda: node.connects == 1)
            for connection in list(seed.network._connections):
                connection._transport.abort()  # type: ignore[union-attr]
            await wait_until(lambda: node.connects == 2 and len(node.losses) == 1)

    run(story)


def test_a_full_node_checks_new_addresses_and_stays_with_its_peers() -> None:
    """Its outbound connections are complete; a contact that it hears of is dialled once, proven, and left."""

    async def story() -> None:
        one = replace(OPEN, target_outbound=1)
        async with (
            party(1, limits=EAGER, discovery=OPEN) as first,
            party(2, limits=EAGER, discovery=replace(OPEN, target_outbound=0)) as second,
            party(3, first.address, limits=EAGER, discovery=one) as node,
        ):
            await wait_until(lambda: node.connects == 1)
            contact = contact_of(2, second.network.listen_port)
            assert seeker_of(node).book.add(contact, contact.ip)
            await wait_until(lambda: any(e.contact == contact and e.is_tried for e in seeker_of(node).book))
            assert second.events == []
            assert node.network.peers() == [first.id]

    run(story)


def test_a_contact_where_another_key_answers_is_forgotten() -> None:
    async def story() -> None:
        async with party(1, limits=EAGER, discovery=OPEN) as first, party(2, limits=EAGER, discovery=OPEN) as liar:
            lie = contact_of(9, liar.network.listen_port)
            book = seeker_of(first).book
            assert book.add(lie, lie.ip)
            await wait_until(lambda: lie not in book)
            assert first.network.peers() == []

    run(story)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (encode(Contacts((contact_of(5, 1),))), "1 contacts came that nobody asked for"),
        (encode(ContactRequest((contact_of(5, 1),))), "a peer tells another's contact as its own"),
        (b"\xc1", "message on peer exchange"),
    ],
    ids=["unasked", "foreign", "garbage"],
)
def test_a_breach_of_the_exchange_costs_the_connection(message: bytes, reason: str) -> None:
    async def story() -> None:
        async with party(1, limits=EAGER, discovery=OPEN) as target, raw_peer(2, target) as peer:
            peer.write_frame(cut_frame(EXCHANGE_CHANNEL, message, 0)[0])
            await peer.read_to_end()
            await wait_until(lambda: len(target.losses) == 1 and reason in target.losses[0])
            assert len(seeker_of(target).book) == 0

    run(story)


def test_asking_too_often_is_a_breach() -> None:
    exchange = Exchange(id_of(2), is_outbound=False, ask_interval_s=60.0)
    exchange.read(encode(ContactRequest(())), 0.0)
    exchange.read(encode(ContactRequest(())), 31.0)
    with pytest.raises(Refused, match=r"twice in 1\.0 s, once in 60 s"):
        exchange.read(encode(ContactRequest(())), 32.0)


def test_who_was_dialled_does_not_ask() -> None:
    exchange = Exchange(id_of(2), is_outbound=True, ask_interval_s=60.0)
    with pytest.raises(Refused, match="only who dials may"):
        exchange.read(encode(ContactRequest(())), 0.0)


def test_an_answer_counts_once() -> None:
    exchange = Exchange(id_of(2), is_outbound=True, ask_interval_s=60.0)
    assert exchange.ask(0.0, ()) is not None
    assert exchange.ask(59.0, ()) is None
    full = encode(Contacts(tuple(contact_of(5, port + 1) for port in range(MAX_CONTACTS_TOLD))))
    assert len(full) < EAGER.channels[EXCHANGE_CHANNEL].max_message_bytes
    exchange.read(full, 1.0)
    with pytest.raises(Refused, match="nobody asked for"):
        exchange.read(full, 2.0)


def test_a_node_without_exchange_ignores_it() -> None:
    async def story() -> None:
        async with party(1, limits=EAGER) as target, raw_peer(2, target) as peer:
            peer.write_frame(cut_frame(EXCHANGE_CHANNEL, encode(ContactRequest(())), 0)[0])
            peer.write_frame(b"\x01\x00\x00\x00\x01x")
            await wait_until(lambda: len(target.received) == 1)
            async with raw_socket(target):
                assert target.losses == []

    run(story)
