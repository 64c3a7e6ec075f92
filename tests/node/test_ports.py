"""One suite over the real and the simulated implementation of each port."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from flockchain.chunks import CHUNK_BYTES, compute_bytes_root
from flockchain.codec import encode
from flockchain.crypto import is_signature_valid, sha256, signing_context
from flockchain.errors import Refused
from flockchain.execution.beacon import BeaconChain
from flockchain.execution.genesis import build_state
from flockchain.merkle import compute_proof, hash_leaf
from flockchain.node.clock import SystemClock
from flockchain.node.net.limits import NetworkLimits
from flockchain.node.net.network import TcpNetwork
from flockchain.node.ports import (
    Blobs,
    Channel,
    Clock,
    Network,
    NetworkEvent,
    PeerConnected,
    PeerLost,
    Received,
    Signer,
    Store,
)
from flockchain.node.signer import PersistedSigner, compute_beacon_seed, create_signer_state
from flockchain.store.blob_store import BlobStore
from flockchain.store.chain_store import ChainStore
from flockchain.txs import transfer
from flockchain.types.chain import PREVOTE, TX_PURPOSE, VOTE_PURPOSE, ProposalBody, VoteBody
from flockchain.types.tx import Tx
from tests.support.ledger import Ledger, make_key
from tests.support.memory_ports import MemoryBlobs, MemorySigner, MemoryStore
from tests.support.sim_clock import SimClock, SimWorld
from tests.support.sim_network import SimNet, SimNetwork

GENESIS = b"g" * 32
KEY = make_key("val0")

# -- Clock ------------------------------------------------------------------------------------------------------------


def run_system_clock(story: Callable[[Clock], None], wait_ms: int) -> None:
    async def run() -> None:
        story(SystemClock())
        await asyncio.sleep(wait_ms / 1_000)

    asyncio.run(run())


def run_sim_clock(story: Callable[[Clock], None], wait_ms: int) -> None:
    world = SimWorld()
    story(SimClock(world))
    world.run_for(wait_ms)


@pytest.mark.parametrize("run", [run_system_clock, run_sim_clock])
def test_timers_run_once_in_order_unless_cancelled(run: Callable[[Callable[[Clock], None], int], None]) -> None:
    fired: list[str] = []

    def story(clock: Clock) -> None:
        assert clock.now_ms() > 1_600_000_000_000
        # Far enough apart that a busy machine, which may pause between these lines, does not change the order.
        clock.call_later(-5, lambda: fired.append("now"))
        clock.call_later(400, lambda: fired.append("second"))
        clock.call_later(50, lambda: fired.append("first"))
        clock.call_later(100, lambda: fired.append("never"))()
        assert not fired, "never from within call_later"

    run(story, 700)
    assert fired == ["now", "first", "second"]


# -- Network ----------------------------------------------------------------------------------------------------------


def run_sim_network(first_step: Callable[[Network, bytes], None], events: list[NetworkEvent]) -> None:
    world = SimWorld()
    net = SimNet(world)
    one, other = SimNetwork(net, b"1" * 20), SimNetwork(net, b"2" * 20)
    one.handler, other.handler = lambda _: None, events.append
    net.connect(one.id, other.id)
    world.run_for(100)
    first_step(one, other.id)
    world.run_for(100)
    one.stop()
    world.run_for(100)


def run_tcp_network(first_step: Callable[[Network, bytes], None], events: list[NetworkEvent]) -> None:
    async def run() -> None:
        other = TcpNetwork(make_key("n2"), GENESIS, "c", "127.0.0.1:0", (), NetworkLimits(), events.append)
        await other.start()
        target = f"127.0.0.1:{other.listen_port}"
        one = TcpNetwork(make_key("n1"), GENESIS, "c", None, (target,), NetworkLimits(), lambda _: None)
        await one.start()
        await wait_for(lambda: one.peers() == [other.id])
        first_step(one, other.id)
        await wait_for(lambda: len([e for e in events if isinstance(e, Received)]) == 3)
        await one.stop()
        await wait_for(lambda: isinstance(events[-1], PeerLost))
        await other.stop()

    async def wait_for(predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not predicate():
                await asyncio.sleep(0.005)

    asyncio.run(run())


@pytest.mark.parametrize("run", [run_tcp_network, run_sim_network])
def test_messages_arrive_between_connection_and_loss(
    run: Callable[[Callable[[Network, bytes], None], list[NetworkEvent]], None],
) -> None:
    events: list[NetworkEvent] = []

    def story(network: Network, peer: bytes) -> None:
        assert network.peers() == [peer]
        assert network.send(peer, Channel.SYNC, b"hello")
        assert not network.send(b"x" * 20, Channel.SYNC, b"nobody")
        network.broadcast(Channel.CONSENSUS, b"all")
        network.broadcast(Channel.MEMPOOL, b"all but you", except_peer=peer)
        network.broadcast(Channel.BLOBS, b"last")

    run(story, events)
    assert isinstance(events[0], PeerConnected)
    assert isinstance(events[-1], PeerLost)
    received = {(e.channel, e.message) for e in events if isinstance(e, Received)}
    assert received == {(Channel.SYNC, b"hello"), (Channel.CONSENSUS, b"all"), (Channel.BLOBS, b"last")}


# -- Store ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    ledger = Ledger()
    rows = list(build_state(ledger.genesis).rows())
    if request.param == "memory":
        yield MemoryStore(rows)
        return
    chain_store = ChainStore(tmp_path / "chain.sqlite")
    chain_store.initialize(encode(ledger.genesis), rows)
    yield chain_store
    chain_store.close()


def test_a_store_gives_back_blocks_commits_and_the_state_after_them(store: Store) -> None:
    ledger = Ledger()
    assert store.height == 0
    assert store.block(0) is None
    assert list(store.load_rows()) == list(ledger.state.rows())
    for i in range(3):
        outcome = ledger.produce(ledger.tx("alice", transfer.Body(ledger.address("bob"), i + 1, "")))
        store.persist_blocks([(ledger.blocks[-1], ledger.commits[-1], outcome)])
    assert store.height == 3
    for height in (1, 2, 3):
        assert store.block(height) == ledger.blocks[height - 1]
        assert store.commit(height) == ledger.commits[height]
    assert store.block(4) is None
    assert store.commit(4) is None
    assert list(store.load_rows()) == list(ledger.state.rows())


# -- Signer -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "file"])
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    if request.param == "memory":
        return MemorySigner(KEY, GENESIS, BeaconChain(compute_beacon_seed(KEY)))
    create_signer_state(tmp_path / "signer_state.json", bytes(KEY.verify_key))
    return PersistedSigner(KEY, tmp_path / "signer_state.json", GENESIS)


def test_a_signer_signs_once_per_step(signer: Signer) -> None:
    proposal = signer.sign_proposal(ProposalBody(5, 0, b"a" * 32, -1))
    vote = signer.sign_vote(VoteBody(PREVOTE, 5, 0, b"a" * 32))
    assert signer.sign_proposal(ProposalBody(5, 0, b"a" * 32, -1)) == proposal
    assert signer.sign_vote(VoteBody(PREVOTE, 5, 0, b"a" * 32)) == vote
    assert vote.validator == proposal.proposer == signer.address
    context = signing_context(VOTE_PURPOSE, GENESIS)
    assert is_signature_valid(signer.public_key, context, encode(vote.body), vote.signature)
    for refused in (VoteBody(PREVOTE, 5, 0, b""), VoteBody(PREVOTE, 4, 9, b"")):
        with pytest.raises(Refused):
            signer.sign_vote(refused)


def test_a_signer_reveals_its_beacon_link_by_link(signer: Signer) -> None:
    assert signer.reveal_beacon(b"h" * 32) is None
    head = BeaconChain(compute_beacon_seed(KEY)).head
    for _ in range(3):
        preimage = signer.reveal_beacon(head)
        assert preimage is not None
        assert sha256(preimage) == head
        head = preimage


def test_a_signer_signs_transactions_of_its_own_account(signer: Signer) -> None:
    tx = Tx("c", "transfer", signer.address, 0, 1, 2, b"")
    signed = signer.sign_tx(tx)
    context = signing_context(TX_PURPOSE, GENESIS)
    assert is_signature_valid(signed.public_key, context, encode(tx), signed.signature)


# -- Blobs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "files"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return MemoryBlobs() if request.param == "memory" else BlobStore(tmp_path / "blobs")


def test_a_blob_is_whole_when_its_last_proven_chunk_is_in(blobs: Blobs) -> None:
    data = Random(1).randbytes(700_000)  # three chunks
    chunks = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    hashes, root = [hash_leaf(chunk) for chunk in chunks], compute_bytes_root(data)
    with pytest.raises(Refused):
        blobs.put_chunk(root, 0, chunks[0], compute_proof(hashes, 0))
    blobs.expect(root, len(data))
    assert list(blobs.missing(root)) == [0, 1, 2]
    with pytest.raises(Refused):
        blobs.put_chunk(root, 0, chunks[1], compute_proof(hashes, 1))
    for index in (2, 0):
        blobs.put_chunk(root, index, chunks[index], compute_proof(hashes, index))
    assert list(blobs.missing(root)) == [1]
    assert not blobs.has(root)
    with pytest.raises(Refused):
        blobs.chunk(root, 0)
    blobs.put_chunk(root, 1, chunks[1], compute_proof(hashes, 1))
    assert blobs.has(root)
    assert [blobs.chunk(root, i)[0] for i in range(3)] == chunks
    assert list(blobs.chunk(root, 2)[1]) == compute_proof(hashes, 2)
