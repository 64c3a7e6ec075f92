"""What a node makes of its home before it runs: genesis, the chain's file, the key, limits, discovery, passphrase."""

from pathlib import Path

import structlog

from flockchain.codec import encode
from flockchain.crypto import parse_address
from flockchain.errors import Fault, Refused
from flockchain.execution.genesis import build_state
from flockchain.files import disk_faults
from flockchain.genesis import Genesis, load_genesis
from flockchain.node.config import Config, P2pConfig
from flockchain.node.home import Home
from flockchain.node.key_file import load_key
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Limits
from flockchain.node.net.seeker import Discovery
from flockchain.node.records import StartRecord, decode_record
from flockchain.node.signer import PersistedSigner, forbid_signed_heights, read_signed_height
from flockchain.node.wal import WriteAheadLog
from flockchain.store.chain_store import ChainStore

log = structlog.get_logger()


def read_genesis(path: Path) -> Genesis:
    """Raises `Fault` that names the file: it is never this node's to correct."""
    try:
        with disk_faults(path):
            return load_genesis(path)
    except (Refused, UnicodeDecodeError) as error:
        raise Fault(
            f"{path}: {error}. Nothing was changed. A genesis document is never edited: copy it again from another "
            "node, compare `flockchain genesis hash`, then start again"
        ) from None


def open_store(home: Home, genesis: Genesis, retain_blocks: int = 0) -> ChainStore:
    """The chain's file, initialised from genesis when new; raises `Fault` when it is of another chain."""
    store = ChainStore(home.chain, retain_blocks=retain_blocks)
    try:
        if store.genesis_bytes is None:
            store.initialize(encode(genesis), build_state(genesis).rows())
        elif store.genesis_bytes != encode(genesis):
            raise Fault(f"{home.chain} belongs to another genesis than {home.genesis}: restore the right genesis.json")
    except BaseException:
        store.close()
        raise
    return store


def open_signer(config: Config, home: Home, genesis: Genesis, height: int) -> PersistedSigner | None:
    """The validator's key, None for a full node; `height` is what the chain's file holds.

    A block is on disk before anything of the next height is signed, so a key that signed further has lost blocks, and
    its log of the height in progress with them: without the lock it must not vote there again.
    """
    if not config.validator.enabled:
        return None
    key = load_key(home.validator_key, read_passphrase(config))
    signer = PersistedSigner(key, home.signer_state, genesis.hash())
    signed = read_signed_height(home.signer_state)[1]
    if signed <= height + 1:
        return signer
    lost = (
        f"{home.chain} ends at height {height} and this key signed at height {signed}: the file was deleted or set "
        "back, or an older one is in its place"
    )
    if not (config.p2p.persistent_peers or config.p2p.seeds):
        raise Fault(
            f"{lost}. No peer is configured that could give the blocks again, and this "
            "key signs none of them anew. Nothing was changed: put the newest copy of the file back, or name a node "
            "that has the chain under [p2p] persistent_peers. Never delete signer_state.json: the key could sign twice"
        )
    log.warning(
        "blocks-lost",
        reason=lost,
        then=f"the blocks are fetched from peers again, and this validator votes from height {signed + 1} on. That is "
        "safe while signer_state.json stays where it is",
    )
    forbid_signed_heights(home.signer_state)
    return PersistedSigner(key, home.signer_state, genesis.hash())


def leave_height_without_log(home: Home, signer: PersistedSigner, log_file: WriteAheadLog, ledger: Ledger) -> None:
    """Let a key whose log is lost sign nothing more at the height in progress; `Fault` if that would halt the chain.

    Records are on disk before the first signature of their height leaves, so a key that signed where the log holds
    nothing has lost it, and with it what consensus is locked on: another vote there might break the lock.
    """
    height = ledger.height + 1
    if signer.unfinished_height != height or StartRecord(height) in map(decode_record, log_file.records):
        return
    lost = (
        f"{home.wal} holds nothing of height {height}, at which this key signed already: the file was deleted or "
        "replaced, and nobody knows any more what this validator is locked on"
    )
    members = ledger.members(height)
    total = sum(member.power for member in members)
    power = sum(member.power for member in members if member.address == signer.address)
    if 3 * power >= total:
        raise Fault(
            f"{lost}. It has {power} of {total} voting power, so no block is decided without it, and a vote against "
            "its lock could fork the chain. Decided blocks are safe, nothing was changed: put the file back as it was. "
            "If it is gone for good, start with `enabled = false` under [validator]: where another node has decided "
            f"height {height} its block is fetched, then enable again. Never delete signer_state.json"
        )
    log.warning(
        "log-lost",
        reason=lost,
        then=f"the others decide height {height}, and this validator votes from height {height + 1} on. That is safe "
        "while signer_state.json stays where it is; nothing is to be done",
    )
    signer.leave_height()


def make_limits(config: Config) -> Limits:
    """Bounds of the mempool that are this node's own; the others are parameters of the chain."""
    return Limits(max_txs=config.mempool.max_txs, max_bytes=config.mempool.max_bytes)


def make_discovery(config: P2pConfig, home: Home) -> Discovery | None:
    """How the node finds peers beside those that its configuration names; raises `Refused` for ids it cannot read."""
    if not config.exchange:
        return None
    return Discovery(
        book_path=home.peers,
        seeds=config.seeds,
        private_peers=frozenset(parse_address(text) for text in config.private_peers),
        external_address=config.external_address,
        target_outbound=config.target_outbound,
    )


def read_passphrase(config: Config) -> bytes:
    """Of node and validator key; empty when no file is named."""
    name = config.validator.passphrase_file
    if not name:
        return b""
    try:
        return Path(name).read_bytes().strip()
    except OSError as error:
        raise Fault(f"cannot read the passphrase file {name}: {error.strerror or error}") from None
