"""`config.toml`: what may differ from node to node. What must be equal everywhere is a chain parameter in genesis."""

import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from flockchain.errors import Fault, FlockchainError
from flockchain.files import explain
from flockchain.node.net.peers import parse_peer_address

Count = Annotated[int, Meta(ge=0, le=2**40)]
PositiveCount = Annotated[int, Meta(ge=1, le=2**40)]
_HASH = re.compile(r"[0-9a-f]{64}")


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class P2pConfig(_Section, frozen=True, kw_only=True):
    listen: str = "0.0.0.0:26600"
    external_address: str = ""
    persistent_peers: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    private_peers: tuple[str, ...] = ()
    exchange: bool = True
    target_outbound: Count = 8
    max_inbound: PositiveCount = 40
    max_outbound: PositiveCount = 10


class ApiConfig(_Section, frozen=True, kw_only=True):
    enabled: bool = True
    listen: str = "127.0.0.1:26601"
    client_txs_per_s: PositiveCount = 200
    total_txs_per_s: PositiveCount = 250


class MempoolConfig(_Section, frozen=True, kw_only=True):
    max_txs: PositiveCount = 10_000
    max_bytes: PositiveCount = 32 * 2**20


class BlobsConfig(_Section, frozen=True, kw_only=True):
    max_bytes: PositiveCount = 64 * 2**30
    replicate: bool = True


class StorageConfig(_Section, frozen=True, kw_only=True):
    retain_blocks: Count = 0
    snapshot_interval_blocks: Count = 2_000
    keep_snapshots: PositiveCount = 2


class SyncConfig(_Section, frozen=True, kw_only=True):
    from_snapshot: bool = True
    trust: str = ""


class ValidatorConfig(_Section, frozen=True, kw_only=True):
    enabled: bool = True
    passphrase_file: str = ""


class LogConfig(_Section, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    max_bytes: PositiveCount = 16 * 2**20
    files: PositiveCount = 4


class Config(_Section, frozen=True, kw_only=True):
    p2p: P2pConfig = P2pConfig()
    api: ApiConfig = ApiConfig()
    mempool: MempoolConfig = MempoolConfig()
    blobs: BlobsConfig = BlobsConfig()
    storage: StorageConfig = StorageConfig()
    sync: SyncConfig = SyncConfig()
    validator: ValidatorConfig = ValidatorConfig()
    log: LogConfig = LogConfig()


EXPLANATIONS: dict[str, str] = {
    "p2p": "Other nodes.",
    "p2p.listen": "Where other nodes reach this one: host:port; port 0 takes a free one.",
    "p2p.external_address": "IP:port that others should dial, when it differs from `listen` (behind NAT); or empty.",
    "p2p.persistent_peers": 'Nodes to stay connected with: "host:port", or "flk1...@host:port" to pin their node key.',
    "p2p.seeds": "Nodes to ask for others when none is known: written like persistent peers.",
    "p2p.private_peers": "Node ids (flk1...) that are never told to other nodes: those behind a sentry, for example.",
    "p2p.exchange": "Whether to learn of other nodes from peers, and to tell peers of them.",
    "p2p.target_outbound": "Connections to open beside those that others opened, while nodes are known to dial.",
    "p2p.max_inbound": "Most connections that others opened.",
    "p2p.max_outbound": "Most connections that this node opened.",
    "api": "The REST interface.",
    "api.enabled": "Whether this node answers REST requests.",
    "api.listen": "host:port of the REST interface. It has no login: expose it beyond this machine behind a proxy.",
    "api.client_txs_per_s": "Transactions a second taken from one client; two seconds' worth at once.",
    "api.total_txs_per_s": "Transactions a second taken from all clients together.",
    "mempool": "Transactions that wait for a block.",
    "mempool.max_txs": "Most transactions held; beyond it the lowest fee goes.",
    "mempool.max_bytes": "Most bytes held, canonical size.",
    "blobs": "Adapter files.",
    "blobs.max_bytes": "Most bytes of adapter files on this disk.",
    "blobs.replicate": "Whether to fetch the adapters of every training round from peers; validators should.",
    "storage": "Blocks and snapshots on this disk.",
    "storage.retain_blocks": "Newest blocks kept, at least 100 and those within the unbonding time; 0 keeps all.",
    "storage.snapshot_interval_blocks": "A snapshot of the state is kept every so many blocks; 0 makes none.",
    "storage.keep_snapshots": "Newest snapshots kept, for others to join from and for `flockchain rollback`.",
    "sync": "How a node without blocks joins.",
    "sync.from_snapshot": "Whether to begin from a peer's snapshot, verified, where the chain is long; else by blocks.",
    "sync.trust": "HEIGHT:BLOCK_ID of a recent block that you believe, to verify from; empty: the genesis validators.",
    "validator": "Signing of blocks.",
    "validator.enabled": "Whether to sign with validator_key.json; false makes a full node that only follows.",
    "validator.passphrase_file": "File that holds the passphrase of node_key.json and validator_key.json; or empty.",
    "log": "Logs: short lines on stderr, JSON lines in logs/.",
    "log.level": "debug, info, warning or error.",
    "log.max_bytes": "Size at which a log file is rotated.",
    "log.files": "Log files kept.",
}
"""What each value means; a test holds that none is missing."""


def parse_trust(text: str) -> tuple[int, bytes] | None:
    """(height, block id) of "HEIGHT:BLOCK_ID"; None for an empty text; raises `Fault`."""
    if not text:
        return None
    height, _, block_id = text.partition(":")
    if not (height.isascii() and height.isdigit() and 0 < int(height) < 2**63 and _HASH.fullmatch(block_id)):
        raise Fault(f"sync.trust {text!r} is no HEIGHT:BLOCK_ID, for example 1200:5f2c... with 64 hex digits")
    return int(height), bytes.fromhex(block_id)


def load_config(path: Path) -> Config:
    """Read and check a configuration; raises `Fault` that names the value, what is allowed and what to do."""
    try:
        document = tomllib.loads(path.read_text())
        _refuse_unknown(path, document)
        config = msgspec.convert(document, Config)
        _check_addresses(path, config)
        return config
    except FileNotFoundError:
        raise Fault(f"{path} is missing: make a home with `flockchain init`") from None
    except OSError as error:
        raise Fault(explain(path, error)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fault(f"{path} is not TOML: {error}: correct it there, then start again") from None
    except msgspec.ValidationError as error:
        what, _, place = str(error).removesuffix("`").partition(" - at `$.")
        meaning = EXPLANATIONS.get(re.sub(r"\[.*", "", place))
        hint = f" {place} is: {meaning}" if meaning else ""
        raise Fault(f"{path}: {place}: {what}.{hint} Correct it, then start again") from None


def _refuse_unknown(path: Path, document: dict[str, Any]) -> None:
    """A name of another version, or a slip of the pen; silently ignored it would look obeyed."""
    for name, values in document.items():
        if name not in Config.__struct_fields__:
            names = ", ".join(Config.__struct_fields__)
            raise Fault(f"{path}: {name} is no section of this version: remove it, or correct it to one of {names}")
        known = getattr(Config(), name).__struct_fields__
        for key in values if isinstance(values, dict) else ():
            if key not in known:
                raise Fault(
                    f"{path}: [{name}] {key} is no setting of this version: "
                    f"remove it, or correct it to one of {', '.join(known)}"
                )


def _check_addresses(path: Path, config: Config) -> None:
    optional = [config.p2p.external_address] if config.p2p.external_address else []
    checks: dict[str, tuple[Callable[[str], object], Sequence[str]]] = {
        "p2p.listen": (parse_host_port, [config.p2p.listen]),
        "p2p.external_address": (parse_host_port, optional),
        "p2p.persistent_peers": (parse_peer_address, config.p2p.persistent_peers),
        "p2p.seeds": (parse_peer_address, config.p2p.seeds),
        "api.listen": (parse_host_port, [config.api.listen]),
    }
    for name, (parse, values) in checks.items():
        for value in values:
            try:
                parse(value)
            except FlockchainError as error:
                raise Fault(f"{path}: {name}: {error}. Correct it, then start again") from None


def format_config(config: Config) -> str:
    """The file with every value explained; `load_config` reads back an equal configuration."""
    lines = ["# Configuration of one flockchain node. Left-out values have the defaults shown by `flockchain init`."]
    for section_name in config.__struct_fields__:
        section = getattr(config, section_name)
        lines += ["", f"# {EXPLANATIONS[section_name]}", f"[{section_name}]"]
        for name in section.__struct_fields__:
            value = _format_value(getattr(section, name))
            lines += [f"# {EXPLANATIONS[f'{section_name}.{name}']}", f"{name} = {value}"]
    return "\n".join(lines) + "\n"


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_format_value(item) for item in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def parse_host_port(text: str) -> tuple[str, int]:
    """("host", port) of "host:port"; raises `Fault`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise Fault(f"{text!r} is no host:port, for example 127.0.0.1:26601")
    return host.strip("[]"), int(port)
