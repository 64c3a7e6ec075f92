"""A validator that was away: how fast it takes the blocks that it missed from a peer. Two processes on loopback."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx
import psutil
from nacl.signing import SigningKey

from bench.report import Result, summarize
from flockchain.client import wait_until
from flockchain.codec import encode
from flockchain.crypto import address_of, sign, signing_context
from flockchain.devnet import Devnet, create_devnet, derive_key, find_free_base_port, start_node
from flockchain.errors import Fault
from flockchain.execution.beacon import BeaconChain, get_beacon_head
from flockchain.execution.block import build_block
from flockchain.genesis import load_genesis
from flockchain.node.home import Home
from flockchain.node.ledger import Ledger
from flockchain.node.opening import open_store
from flockchain.node.ports import Decided
from flockchain.node.signer import compute_beacon_seed
from flockchain.txs import transfer
from flockchain.types.chain import PRECOMMIT, TX_PURPOSE, Commit, CommitSignature, VoteBody
from flockchain.types.rows import ValidatorRow
from flockchain.types.tx import SignedTx, Tx

CHAIN_ID = "flockchain-bench"
VALIDATORS = 4
TX_EVERY = 10
"""One block in so many holds a transfer, the others none: a network that is mostly idle."""
PERSISTED_TOGETHER = 64
START_TIMEOUT_S = 60.0
SYNC_TIMEOUT_S = 300.0


def measure_catch_up(blocks: int, runs: int) -> Result:
    """Blocks per second that a validator applies, from the first to the last of a chain that one peer holds."""
    rates, cpu_ms = zip(*(_catch_up(blocks) for _ in range(runs)), strict=True)
    notes = {"blocks": blocks, "cpu_ms_per_block": round(sorted(cpu_ms)[len(cpu_ms) // 2], 2)}
    return summarize("catch_up_blocks_per_s", "blocks/s", list(rates), **notes)


def _catch_up(blocks: int) -> tuple[float, float]:
    """(blocks per second, CPU milliseconds per block) of the validator that was away."""
    with tempfile.TemporaryDirectory(prefix="flockchain-bench-") as folder:
        devnet = create_devnet(
            Path(folder) / "devnet",
            validators=VALIDATORS,
            base_port=find_free_base_port(VALIDATORS),
            chain_id=CHAIN_ID,
        )
        make_history(devnet.node_home(0), blocks)
        with running_node(devnet, 0), httpx.Client(timeout=5.0, trust_env=False) as http:
            if not wait_until(lambda: height_of(http, devnet, 0) == blocks, timeout_s=START_TIMEOUT_S):
                raise Fault(f"the peer did not start with its {blocks} blocks")
            with running_node(devnet, 1) as process:
                return _observe(http, devnet, blocks, process)


def _observe(http: httpx.Client, devnet: Devnet, blocks: int, process: psutil.Process) -> tuple[float, float]:
    """From the first height that shows to the last."""
    first: tuple[float, int, float] | None = None
    end_s = time.monotonic() + SYNC_TIMEOUT_S
    while time.monotonic() < end_s:
        height, cpu = height_of(http, devnet, 1), process.cpu_times()
        now = time.monotonic(), height, cpu.user + cpu.system
        if first is None and height > 0:
            first = now
        if height == blocks and first is not None:
            done = max(1, height - first[1])
            return done / (now[0] - first[0]), 1000 * (now[2] - first[2]) / done
        time.sleep(0.02)
    raise Fault(f"the validator did not catch up with {blocks} blocks in {SYNC_TIMEOUT_S:.0f} s")


def make_history(home_path: Path, blocks: int) -> None:
    """Bring a node's home to so many decided blocks, made here by the validators' public test keys."""
    home = Home(home_path)
    genesis = load_genesis(home.genesis)
    store = open_store(home, genesis)
    ledger, decided = Ledger(store), list[Decided]()
    beacons: dict[bytes, BeaconChain] = {}
    try:
        for height in range(ledger.height + 1, blocks + 1):
            proposer = ledger.proposer_of(height, 0)
            if proposer not in beacons:
                beacons[proposer] = BeaconChain(compute_beacon_seed(_keys()[proposer]))
            head = get_beacon_head(ledger.state.get(ValidatorRow, proposer), height)
            preimage = beacons[proposer].find_preimage(head)
            assert preimage is not None
            block = build_block(
                ledger.state,
                proposer=proposer,
                time_ms=ledger.chain.time_ms + 1,
                txs=[_make_transfer(ledger, height // TX_EVERY - 1)] if height % TX_EVERY == 0 else [],
                last_commit=ledger.last_commit,
                late_precommits=(),
                beacon_preimage=preimage,
            )
            decided.append(ledger.execute(block, _make_commit(ledger, height, block.block_id())))
            if len(decided) == PERSISTED_TOGETHER or height == blocks:
                ledger.persist(decided)
                decided.clear()
    finally:
        store.close()


def _make_commit(ledger: Ledger, height: int, block_id: bytes) -> Commit:
    """Precommits of all validators."""
    body = encode(VoteBody(PRECOMMIT, height, 0, block_id))
    keys = _keys()
    signatures = (CommitSignature(address, sign(keys[address], ledger.vote_context, body)) for address in sorted(keys))
    return Commit(height, 0, block_id, tuple(signatures))


def _make_transfer(ledger: Ledger, nonce: int) -> bytes:
    key = derive_key(CHAIN_ID, "account0")
    to = address_of(bytes(derive_key(CHAIN_ID, "account1").verify_key))
    tx = Tx(
        chain_id=CHAIN_ID,
        kind=transfer.KIND,
        sender=address_of(bytes(key.verify_key)),
        nonce=nonce,
        fee_uflk=1_000,
        expires_ms=ledger.chain.time_ms + 60_000,
        body=encode(transfer.Body(to, 1, "")),
    )
    context = signing_context(TX_PURPOSE, ledger.chain.genesis_hash)
    return encode(SignedTx(tx, bytes(key.verify_key), sign(key, context, encode(tx))))


@cache
def _keys() -> dict[bytes, SigningKey]:
    """Consensus keys by address."""
    keys = [derive_key(CHAIN_ID, f"validator{i}") for i in range(VALIDATORS)]
    return {address_of(bytes(key.verify_key)): key for key in keys}


@contextmanager
def running_node(devnet: Devnet, index: int) -> Iterator[psutil.Process]:
    process = psutil.Process(start_node(devnet, index))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def height_of(http: httpx.Client, devnet: Devnet, index: int) -> int:
    try:
        height: int = http.get(f"{devnet.api_urls()[index]}/v1/status").json()["height"]
    except (httpx.HTTPError, KeyError, ValueError):
        return -1
    return height
