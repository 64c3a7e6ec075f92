"""The Python SDK: the chain as seen over REST, by a person's key.

    client = Client(["http://127.0.0.1:26601"])
    receipt = client.send(key, "transfer", transfer.Body(to=bob, amount_uflk=5, memo=""))

Several addresses may be given: the client changes over to the next when one does not answer, and never signs a
second time to do so. What is re-sent is the same bytes, so nothing can happen twice.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx
from nacl.signing import SigningKey

from flockchain.chunks import compute_file_root
from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import address_of, format_address, sign, signing_context
from flockchain.errors import FlockchainError, Refused
from flockchain.types.chain import TX_PURPOSE
from flockchain.types.light import LightBlock, ProvenRow
from flockchain.types.rows import Account, Delegation, Stake, Task, TrainingRound, ValidatorRow
from flockchain.types.tx import OK, SignedTx, Tx

DEFAULT_NODE = "http://127.0.0.1:26601"
DEFAULT_EXPIRY_MS = 600_000
POLL_MS = 10_000
"""Longest single wait asked of a node; it answers as soon as there is something to say."""
UPLOAD_BYTES = 1_048_576
Json = dict[str, Any]
T = TypeVar("T")


class Unreachable(FlockchainError):
    """None of the nodes answered."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a signature needs to know of the chain."""

    chain_id: str
    genesis_hash: bytes
    min_fee_uflk: int
    fee_per_byte_uflk: int


class Client:
    """Reads and writes through one of several nodes."""

    def __init__(self, nodes: Sequence[str] = (), *, timeout_s: float = 15.0) -> None:
        default = os.environ.get("FLOCKCHAIN_NODE", DEFAULT_NODE)
        self._nodes = [url.rstrip("/") for url in (nodes or [default])]
        self._current = 0
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)
        self._network: Network | None = None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def node(self) -> str:
        """The node that answered last."""
        return self._nodes[self._current]

    # Reading

    def get(self, path: str, **query: str | int | None) -> Json:
        """JSON of a GET under ``/v1``; raises `Refused` with the node's own sentence, or `Unreachable`."""
        params = {name: value for name, value in query.items() if value is not None}
        return _json(self._ask("GET", f"/v1{path}", params=params))

    def find(self, path: str, **query: str | int | None) -> Json | None:
        """As `get`; None where the node knows no such thing."""
        try:
            return self.get(path, **query)
        except Refused as refusal:
            if refusal.code == "not-found":
                return None
            raise

    def pages(self, path: str, **query: str | int | None) -> Iterator[Json]:
        """Every item of a paged list."""
        cursor: str | None = None
        while True:
            page = self.get(path, cursor=cursor, limit=200, **query)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def status(self) -> Json:
        return self.get("/status")

    def account(self, address: bytes) -> Json:
        """Balance and nonce; zeros for an address that the chain has not met."""
        return self.find(f"/accounts/{format_address(address)}") or {
            "address": format_address(address),
            "balance_uflk": 0,
            "nonce": 0,
        }

    def task(self, task: int) -> Json:
        return self.get(f"/tasks/{task}")

    def round(self, task: int, number: int) -> Json:
        return self.get(f"/tasks/{task}/rounds/{number}")

    def final(self, task: int) -> Json | None:
        """The task's hidden final set; None where it has none."""
        try:
            return self.get(f"/tasks/{task}/final")
        except Refused as refusal:
            if refusal.code != "not-found":
                raise
            return None

    # Reading without trust: what these two return is verified by `flockchain.light`, not here

    def light_block(self, height: int | None = None) -> LightBlock:
        """Header, commit and validator sets of a height, or of the newest block."""
        found = self.get(f"/light/{'latest' if height is None else height}")
        return _decode_canonical(LightBlock, found, self.node)

    def proven_row(self, kind: type[Any], *key: bytes | int | str) -> ProvenRow:
        """A row of the state, or its absence, with the node's proof of it; `kind` is one of `PROVABLE`."""
        path, query = PROVABLE[kind](*key)
        answer = self._ask("GET", f"/v1{path}", params={**query, "prove": "true"})
        try:
            found = _json(answer)
        except Refused as refusal:
            if refusal.code != "not-found":
                raise
            found = answer.json()["error"].get("details") or {}  # what is not there is proven as well
        return _decode_canonical(ProvenRow, found.get("proof") or {}, self.node)

    def network(self) -> Network:
        """Chain id, genesis hash and fees, asked once."""
        if self._network is None:
            status, params = self.get("/status"), self.get("/params")
            self._network = Network(
                status["chain_id"],
                bytes.fromhex(status["genesis_hash"]),
                params["fees"]["min_fee_uflk"],
                params["fees"]["fee_per_byte_uflk"],
            )
        return self._network

    # Writing

    def build(
        self,
        key: SigningKey,
        kind: str,
        body: Canonical | bytes,
        *,
        free: bool = False,
        fee_uflk: int | None = None,
        nonce: int | None = None,
        expiry_ms: int = DEFAULT_EXPIRY_MS,
    ) -> bytes:
        """Canonical bytes of a signed transaction; the fee is the least the chain asks unless given.

        `free`: the sender is a drawn member that owes this transaction now. Keep the bytes and re-send them:
        building again would sign again.
        """
        network = self.network()
        sender = address_of(bytes(key.verify_key))
        if nonce is None:
            nonce = int(self.account(sender)["nonce"])
        now_ms = int(self.status()["time_ms"])
        expires_ms = max(now_ms, time.time_ns() // 1_000_000) + expiry_ms
        content = body if isinstance(body, bytes) else encode(body)
        fee = 0 if free else fee_uflk
        while True:
            signed = self.sign(key, kind, content, nonce=nonce, fee_uflk=fee or 0, expires_ms=expires_ms)
            least = network.min_fee_uflk + network.fee_per_byte_uflk * len(signed)
            if fee is not None and (free or fee_uflk is not None or fee >= least):
                return signed
            fee = least

    def sign(self, key: SigningKey, kind: str, body: bytes, *, nonce: int, fee_uflk: int, expires_ms: int) -> bytes:
        """Canonical bytes of a transaction with every field given."""
        network = self.network()
        tx = Tx(network.chain_id, kind, address_of(bytes(key.verify_key)), nonce, fee_uflk, expires_ms, body)
        context = signing_context(TX_PURPOSE, network.genesis_hash)
        return encode(SignedTx(tx, bytes(key.verify_key), sign(key, context, encode(tx))))

    def submit(self, tx_bytes: bytes) -> str:
        """Hand signed bytes to a node; returns their hash. The same bytes may be submitted again at any time."""
        answer = self._ask("POST", "/v1/txs", content=tx_bytes, headers={"Content-Type": "application/octet-stream"})
        try:
            return str(_json(answer)["hash"])
        except Refused as refusal:
            if refusal.code == "fee-too-low":
                self._network = None  # a change may have raised the fees: ask again before the next one
            raise

    def wait(self, tx_hash: str, *, timeout_s: float = 60.0) -> Json:
        """The transaction once it is final; raises `Refused` (``not-final``) after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            found = self.find(f"/txs/{tx_hash}", wait_ms=min(POLL_MS, max(1, int(left_s * 1000))))
            if found is not None and found["height"] is not None:
                return found
            if found is None:
                time.sleep(min(0.1, max(0.0, left_s)))
        raise Refused("not-final", f"transaction {tx_hash} is not final after {timeout_s:.0f} s: query it again later")

    def send(self, key: SigningKey, kind: str, body: Canonical, *, free: bool = False, timeout_s: float = 60.0) -> Json:
        """Build, submit and wait; raises `Refused` when the chain refused it."""
        result = self.wait(self.submit(self.build(key, kind, body, free=free)), timeout_s=timeout_s)
        if result["code"] != OK:
            raise Refused(result["code"], result["message"])
        return result

    # Adapters

    def put_blob(self, root: bytes, path: Path) -> None:
        """Upload an adapter whose root the chain has recorded; continues where an earlier upload stopped."""
        size = path.stat().st_size
        url = f"/v1/adapters/{root.hex()}/blob"
        offset = 0
        with path.open("rb") as file:
            while offset < size or size == 0:
                file.seek(offset)
                data = file.read(UPLOAD_BYTES)
                headers = {"Content-Range": f"bytes {offset}-{offset + len(data) - 1}/{size}"}
                answer = _json(self._ask("PUT", url, content=data, headers=headers))
                if answer.get("complete"):
                    return
                offset = int(answer["received_bytes"])

    def get_blob(self, root: bytes, path: Path) -> bool:
        """Download an adapter to `path` and check its root; False while no node holds it."""
        for _ in self._nodes:
            try:
                if self._download(root, path):
                    return True
            except (Unreachable, Refused):
                pass
            self._current = (self._current + 1) % len(self._nodes)
        return False

    def _download(self, root: bytes, path: Path) -> bool:
        """Into a file beside `path` that a later call goes on with; what has another root is thrown away."""
        partial = path.with_name(f".download-{root.hex()}")
        with partial.open("ab") as file:
            # One process at a time; the lock goes with its holder.
            fcntl.flock(file, fcntl.LOCK_EX)
            is_whole = self._fetch_rest(root, file)
            file.flush()
            if is_whole and partial.exists() and compute_file_root(partial)[0] == root:
                os.replace(partial, path)
                return True
            if is_whole or not os.fstat(file.fileno()).st_size:
                partial.unlink(missing_ok=True)
        return False

    def _fetch_rest(self, root: bytes, file: IO[bytes]) -> bool:
        """Append what the file lacks; False when the node does not hold it or stops in the middle."""
        offset = file.seek(0, os.SEEK_END)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self._http.stream("GET", f"{self.node}/v1/adapters/{root.hex()}/blob", headers=headers) as answer:
                if answer.status_code == 416:
                    return True  # nothing is left to fetch: the root decides
                if answer.status_code not in (200, 206):
                    return False
                if answer.status_code == 200:
                    file.truncate(0)
                for chunk in answer.iter_bytes():
                    file.write(chunk)
        except httpx.HTTPError:
            return False
        return True

    # Transport

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The first node that answers, beginning with the one that answered last."""
        errors: list[str] = []
        for _ in self._nodes:
            try:
                answer = self._http.request(method, f"{self.node}{path}", **options)
                if answer.status_code not in (502, 503, 504):
                    return answer
                errors.append(f"{self.node}: {answer.status_code} {answer.text[:120]}")
            except httpx.HTTPError as error:
                errors.append(f"{self.node}: {error or type(error).__name__}")
            self._current = (self._current + 1) % len(self._nodes)
        raise Unreachable(f"no node answers ({'; '.join(errors)}): is one running? Name it by --node URL")


def wait_until(predicate: Callable[[], bool], *, timeout_s: float, every_s: float = 0.05) -> bool:
    """Whether `predicate` became true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


PROVABLE: dict[type[Any], Callable[..., tuple[str, dict[str, str]]]] = {
    Account: lambda address: (f"/accounts/{format_address(address)}", {}),
    ValidatorRow: lambda address: (f"/validators/{format_address(address)}", {}),
    Stake: lambda owner, target: ("/stakes", {"owner": format_address(owner), "target": target}),
    Delegation: lambda delegate, target, delegator: (
        "/stakes/delegations",
        {"delegate": format_address(delegate), "target": target, "delegator": format_address(delegator)},
    ),
    Task: lambda task: (f"/tasks/{task}", {}),
    TrainingRound: lambda task, number: (f"/tasks/{task}/rounds/{number}", {}),
}
"""Kinds of rows that REST proves: from the key of one to its path and query."""


def _decode_canonical(kind: type[T], found: Json, node: str) -> T:
    """The struct in a field `canonical`; raises `Refused` for anything else."""
    try:
        return decode(kind, bytes.fromhex(found["canonical"]))
    except (KeyError, TypeError, ValueError, Refused) as error:
        raise Refused("malformed", f"{node} gave no readable {kind.__name__} ({error}): ask another node") from None


def _json(answer: httpx.Response) -> Json:
    try:
        data: Json = answer.json()
    except ValueError:
        raise Unreachable(f"{answer.url} answered {answer.status_code} with something that is not JSON") from None
    if answer.is_success:
        return data
    error = data.get("error", {})
    raise Refused(str(error.get("code", answer.status_code)), str(error.get("message", data)))
