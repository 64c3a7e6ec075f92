"""Joining by a snapshot: what peers may do to a node that has nothing yet, and what it then does.

The peers are real services over a real chain's file; a story lets one of them deviate.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec
import pytest

from flockchain.codec import decode, encode
from flockchain.errors import Fault, Refused, UpgradeNeeded
from flockchain.node.ledger import Ledger as NodeLedger
from flockchain.node.messages import (
    LightBlockResponse,
    ManifestResponse,
    PartResponse,
    SnapshotOffer,
    SnapshotOffers,
    SnapshotsRequest,
    decode_message,
)
from flockchain.node.ports import Channel, NetworkEvent, Received
from flockchain.node.restore import restore
from flockchain.node.snapshot_offers import DISCOVERY_MS
from flockchain.node.snapshot_service import SERVED_BURST, SnapshotService
from flockchain.node.snapshot_sync import ANSWER_TIMEOUT_MS, Found, SnapshotSync
from flockchain.params import DAY_MS
from flockchain.store.chain_store import ChainStore
from flockchain.types.snapshot import StateChunk
from tests.support.ledger import GENESIS_TIME_MS, make_address
from tests.support.sim_clock import SimClock, SimWorld
from tests.support.sim_network import SimNet, SimNetwork
from tests.support.stored_chain import StoredChain

FIRST, SECOND, TIP = 20, 26, 30
"""Heights of two snapshots and of the chain's end."""
Change = Callable[[object], object]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredChain]:
    """Two snapshots of eight chunks each, cut a thousand times smaller than real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flockchain.state_chunks.CHUNK_BYTES", 600)
        chain = StoredChain(tmp_path_factory.mktemp("chain") / "home")
        for height in (FIRST, SECOND, TIP):
            chain.grow(height - chain.chain.height, txs=2)
            if height != TIP:
                assert chain.snapshots.make(chain.home.chain).depth >= 3
    yield chain
    chain.store.close()


@pytest.fixture(autouse=True)
def _long_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flockchain.node.snapshot_offers.LONG_CHAIN_BLOCKS", 10)


class Peer:
    """Serves the chain; `change` turns an answer into another one, or into None: silence."""

    def __init__(self, net: SimNet, name: str, chain: StoredChain, *, has_snapshots: bool = True) -> None:
        self.id = make_address(name)
        self.change: Change = lambda answer: answer
        self.asked: list[object] = []
        self._network = SimNetwork(net, self.id)
        self._network.handler = self._handle
        self._service = SnapshotService(
            chain.store, chain.snapshots if has_snapshots else None, self, SimClock(net.world)
        )

    def _handle(self, event: NetworkEvent) -> None:
        if isinstance(event, Received):
            question = decode_message(event.channel, event.message)
            self.asked.append(question)
            self._service.serve(event.peer, question)  # type: ignore[arg-type]

    def send(self, peer: bytes, channel: Channel, message: bytes) -> bool:
        """The service's network: what it says passes through `change`."""
        answer = self.change(decode_message(channel, message))
        return answer is None or self._network.send(peer, channel, encode(answer))

    def peers(self) -> list[bytes]:
        return self._network.peers()

    def broadcast(self, channel: Channel, message: bytes, except_peer: bytes | None = None) -> None:
        raise AssertionError("a service answers one peer")

    def penalize(self, peer: bytes, points: int, reason: str) -> None:
        raise AssertionError("a service judges nobody")


class Story:
    """One joining node and its peers."""

    def __init__(
        self,
        chain: StoredChain,
        folder: Path,
        *,
        peers: int = 3,
        trust: tuple[int, bytes] | None = None,
        versions: Collection[int] | None = None,
    ) -> None:
        self.chain = chain
        self.world = SimWorld(GENESIS_TIME_MS + 100_000)
        self.net = SimNet(self.world, seed=3)
        self.peers = [Peer(self.net, f"peer{i}", chain) for i in range(peers)]
        self.network = SimNetwork(self.net, make_address("joining"))
        self.results: list[Found | None] = []
        self.folder = folder
        self.sync = SnapshotSync(
            genesis=chain.genesis,
            trust=trust,
            folder=folder / "joining",
            network=self.network,
            clock=SimClock(self.world),
            on_done=self.results.append,
            versions=versions,
        )
        self.network.handler = self.sync.handle

    def run(self, timeout_ms: int = 120_000) -> Found | None:
        for peer in self.peers:
            self.net.connect(self.network.id, peer.id)
        self.sync.start()
        self.world.run_until(lambda: bool(self.results), timeout_ms)
        self.world.run_for(2 * ANSWER_TIMEOUT_MS)
        [result] = self.results
        return result

    def restored_height(self, found: Found | None) -> int:
        """Of the chain that the node now has: its state is that of the peers, and the next block follows."""
        assert found is not None
        store = ChainStore(self.folder / "chain.sqlite")
        restore(store, self.chain.genesis, found.snapshot, found.state_root)
        height = store.height
        assert store.state_root() == self.chain.roots[height]
        NodeLedger(store).check(self.chain.blocks[height], ())
        store.close()
        return height

    def at_fault(self) -> set[bytes]:
        """Who was banned."""
        return {peer for peer, points, _ in self.network.penalties if points == 100}


def test_a_new_node_takes_the_newest_snapshot_from_several_peers(chain: StoredChain, tmp_path: Path) -> None:
    story = Story(chain, tmp_path)
    found = story.run(2_000)
    assert story.restored_height(found) == SECOND
    assert story.network.penalties == []
    assert all(len(peer.asked) > 2 for peer in story.peers), "the parts are asked of all"


def test_trust_may_begin_at_a_known_block(chain: StoredChain, tmp_path: Path) -> None:
    """A snapshot below the known block is not chosen, and the block itself may be the header that proves one."""
    for height in (FIRST + 5, SECOND + 1):
        story = Story(chain, tmp_path / str(height), trust=(height, chain.blocks[height - 1].block_id()))
        story.folder.mkdir()
        assert story.restored_height(story.run()) == SECOND


def test_a_wrong_trusted_block_stops_the_node_and_bans_nobody(chain: StoredChain, tmp_path: Path) -> None:
    story = Story(chain, tmp_path, trust=(FIRST, bytes(32)))
    with pytest.raises(Fault, match="3 peers have another there: correct it"):
        story.run()
    assert story.network.penalties == []


def test_software_without_the_chains_protocol_version_stops_before_it_fetches_and_bans_nobody(
    chain: StoredChain, tmp_path: Path
) -> None:
    """The snapshot is of version 1, the software of a chain that runs 2 and 3 alone."""
    story = Story(chain, tmp_path, versions=(2, 3))
    with pytest.raises(
        UpgradeNeeded, match=r"follows protocol version 1; this software .* runs 2, 3\. Nothing was stored"
    ):
        story.run()
    assert story.network.penalties == []
    assert not story.results
    assert not (story.folder / "joining").exists()


def test_an_old_trust_is_not_used(chain: StoredChain, tmp_path: Path) -> None:
    story = Story(chain, tmp_path)
    story.world.now_ms += 15 * DAY_MS
    assert story.run() is None
    assert story.network.penalties == []


def change_rows(answer: object) -> object:
    if isinstance(answer, PartResponse) and answer.part > 0:
        rows = decode(StateChunk, answer.data).rows
        return msgspec.structs.replace(answer, data=encode(StateChunk(rows[:-1] if rows else ((b"\x01x", b"y"),))))
    return answer


def change_head(answer: object) -> object:
    if isinstance(answer, PartResponse) and answer.part == 0:
        return msgspec.structs.replace(answer, data=answer.data[:-1] + bytes([answer.data[-1] ^ 1]))
    return answer


def change_manifest(answer: object) -> object:
    if isinstance(answer, ManifestResponse) and answer.manifest is not None:
        tops = (bytes(32), *answer.manifest.tops[1:])
        return msgspec.structs.replace(answer, manifest=msgspec.structs.replace(answer.manifest, tops=tops))
    return answer


def change_header(answer: object) -> object:
    if isinstance(answer, LightBlockResponse) and answer.block is not None:
        header = msgspec.structs.replace(answer.block.header, prev_state_root=bytes(32))
        return msgspec.structs.replace(answer, block=msgspec.structs.replace(answer.block, header=header))
    return answer


@pytest.mark.parametrize("change", [change_rows, change_manifest, change_header, change_head])
def test_whoever_sends_a_wrong_part_is_banned_and_the_others_go_on(
    chain: StoredChain, tmp_path: Path, change: Change
) -> None:
    """Two of three lie: both are found out by what they send, the third gives the snapshot."""
    story = Story(chain, tmp_path)
    liars = sorted(story.peers, key=lambda peer: peer.id)[:2]  # who are asked first
    for liar in liars:
        liar.change = change
    assert story.restored_height(story.run()) == SECOND
    assert story.at_fault() == {liar.id for liar in liars}


def test_all_peers_lying_leaves_blocks(chain: StoredChain, tmp_path: Path) -> None:
    story = Story(chain, tmp_path)
    for peer in story.peers:
        peer.change = change_rows
    assert story.run() is None
    assert story.at_fault() == {peer.id for peer in story.peers}


def test_silent_peers_are_passed_over(chain: StoredChain, tmp_path: Path) -> None:
    """Two of three answer who they are and nothing else."""
    story = Story(chain, tmp_path)
    for peer in story.peers[:2]:
        peer.change = lambda answer: answer if isinstance(answer, SnapshotOffers) else None
    assert story.restored_height(story.run()) == SECOND
    assert story.at_fault() == set()


def test_offers_that_are_not_kept_cost_their_peer_a_try(chain: StoredChain, tmp_path: Path) -> None:
    """A peer offers sixteen snapshots that do not exist; the real one is found within the tries."""
    story = Story(chain, tmp_path, peers=2)

    def invent(answer: object) -> object:
        if isinstance(answer, SnapshotOffers):
            return SnapshotOffers(TIP, tuple(SnapshotOffer(SECOND + 1, depth) for depth in range(14)))
        return answer

    story.peers[0].change = invent
    assert story.restored_height(story.run()) == SECOND


def test_a_peer_that_leaves_is_replaced(chain: StoredChain, tmp_path: Path) -> None:
    story = Story(chain, tmp_path)
    leaving = story.peers[0]

    def leave(answer: object) -> object:
        if isinstance(answer, PartResponse):
            story.net.disconnect(leaving.id, story.network.id)
            return None
        return answer

    leaving.change = leave
    assert story.restored_height(story.run()) == SECOND


def test_without_snapshots_blocks_are_taken_after_a_while(chain: StoredChain, tmp_path: Path) -> None:
    story = Story(chain, tmp_path, peers=0)
    story.peers = [Peer(story.net, "bare", chain, has_snapshots=False)]
    begun_ms = story.world.now_ms
    story.results.clear()
    assert story.run(2 * DISCOVERY_MS) is None
    assert story.world.now_ms - begun_ms >= DISCOVERY_MS


def test_a_short_chain_is_taken_by_blocks_at_once(
    chain: StoredChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flockchain.node.snapshot_offers.LONG_CHAIN_BLOCKS", TIP + 1)
    story = Story(chain, tmp_path)
    assert story.run(500) is None


def test_nobody_there_is_no_reason_to_wait_for_ever(chain: StoredChain, tmp_path: Path) -> None:
    assert Story(chain, tmp_path, peers=0).run(2 * DISCOVERY_MS) is None


def test_a_peer_that_asks_too_much_waits_in_vain(chain: StoredChain, tmp_path: Path) -> None:
    world = SimWorld()
    net = SimNet(world)
    peer, asking = Peer(net, "peer", chain), SimNetwork(net, make_address("asking"))
    heard: list[NetworkEvent] = []
    asking.handler = heard.append
    net.connect(asking.id, peer.id)
    world.run_for(100)
    for _ in range(3 * SERVED_BURST):
        asking.send(peer.id, Channel.SYNC, encode(SnapshotsRequest()))
    world.run_for(100)
    answers = [event for event in heard if isinstance(event, Received)]
    assert SERVED_BURST <= len(answers) < 2 * SERVED_BURST
    message = decode_message(Channel.SYNC, answers[0].message)
    assert isinstance(message, SnapshotOffers)
    assert [offer.height for offer in message.offers] == [SECOND, FIRST]


def test_a_depth_beyond_the_limit_is_malformed() -> None:
    data = encode([17, 5, [[3, 15]]])
    with pytest.raises(Refused, match="<= 14"):
        decode_message(Channel.SYNC, data)
