"""Light blocks of CometBFT under our predicates: `CometRules` is the adapter, `parse_light_block` reads its RPC's JSON.

Hashes and sign bytes after CometBFT's specification (spec/core/data_structures.md, encoding.md): protobuf fields in
order, defaults left out, RFC 6962 trees.
"""

import base64
import hashlib
from calendar import timegm
from dataclasses import dataclass
from time import strptime
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from flockchain.merkle import compute_root

FLAG_COMMIT = 2
PRECOMMIT = 2


@dataclass(frozen=True)
class CometHeader:
    raw: dict[str, Any]
    chain_id: str
    height: int
    time_ms: int
    validators_hash: bytes
    next_validators_hash: bytes


@dataclass(frozen=True)
class CometValidator:
    address: bytes
    public_key: bytes
    power: int


@dataclass(frozen=True)
class CometSignature:
    validator: bytes
    timestamp: str
    signature: bytes


@dataclass(frozen=True)
class CometCommit:
    height: int
    round: int
    block_id: bytes
    parts_total: int
    parts_hash: bytes
    signatures: tuple[CometSignature, ...]


@dataclass(frozen=True)
class CometLightBlock:
    header: CometHeader
    commit: CometCommit
    validators: tuple[CometValidator, ...]
    next_validators: tuple[CometValidator, ...]


class CometRules:
    """`Rules` of CometBFT."""

    def compute_block_id(self, block: CometLightBlock) -> bytes:
        raw = block.header.raw
        version = raw["version"]
        return compute_root(
            [
                varint_field(1, int(version["block"])) + varint_field(2, int(version.get("app") or 0)),
                bytes_field(1, raw["chain_id"].encode()),
                varint_field(1, int(raw["height"])),
                encode_time(parse_time(raw["time"])),
                encode_block_id(raw["last_block_id"]),
                *(
                    bytes_field(1, bytes.fromhex(raw[name] or ""))
                    for name in (
                        "last_commit_hash",
                        "data_hash",
                        "validators_hash",
                        "next_validators_hash",
                        "consensus_hash",
                        "app_hash",
                        "last_results_hash",
                        "evidence_hash",
                        "proposer_address",
                    )
                ),
            ]
        )

    def compute_set_hashes(self, block: CometLightBlock) -> tuple[bytes, bytes]:
        return hash_set(block.validators), hash_set(block.next_validators)

    def is_address_valid(self, validator: CometValidator) -> bool:
        return hashlib.sha256(validator.public_key).digest()[:20] == validator.address

    def is_precommit_valid(self, block: CometLightBlock, signature: CometSignature, validator: CometValidator) -> bool:
        try:
            message = encode_precommit(block.header.chain_id, block.commit, signature.timestamp)
            VerifyKey(validator.public_key).verify(message, signature.signature)
        except (BadSignatureError, ValueError):
            return False
        return True

    def is_child(self, child: CometLightBlock, parent: CometLightBlock) -> bool:
        """Tendermint's predicates do not ask for it, and the vectors leave the field out."""
        return True

    def format_address(self, address: bytes) -> str:
        return address.hex().upper()


def parse_light_block(signed_header: dict[str, Any], validators: Any, next_validators: Any) -> CometLightBlock:
    raw, commit = signed_header["header"], signed_header["commit"]
    header = CometHeader(
        raw,
        raw["chain_id"],
        int(raw["height"]),
        to_ms(raw["time"]),
        bytes.fromhex(raw["validators_hash"]),
        bytes.fromhex(raw["next_validators_hash"]),
    )
    signatures = tuple(
        CometSignature(bytes.fromhex(s["validator_address"]), s["timestamp"], base64.b64decode(s["signature"]))
        for s in commit["signatures"] or []
        if s["block_id_flag"] == FLAG_COMMIT
    )
    block_id = commit["block_id"]
    parts = block_id.get("part_set_header") or block_id["parts"]
    return CometLightBlock(
        header,
        CometCommit(
            int(commit["height"]),
            int(commit["round"]),
            bytes.fromhex(block_id["hash"]),
            int(parts["total"]),
            bytes.fromhex(parts["hash"]),
            signatures,
        ),
        parse_set(validators),
        parse_set(next_validators),
    )


def parse_set(given: Any) -> tuple[CometValidator, ...]:
    return tuple(
        CometValidator(bytes.fromhex(v["address"]), base64.b64decode(v["pub_key"]["value"]), int(v["voting_power"]))
        for v in (given or {}).get("validators") or []
    )


def hash_set(members: tuple[CometValidator, ...]) -> bytes:
    """RFC 6962 over `SimpleValidator {PublicKey pub_key = 1; int64 voting_power = 2}`."""
    return compute_root(
        bytes_field(1, bytes_field(1, v.public_key)) + varint_field(2, v.power)
        for v in sorted(members, key=lambda v: (-v.power, v.address))
    )


def encode_precommit(chain_id: str, commit: CometCommit, timestamp: str) -> bytes:
    """`CanonicalVote`, length-delimited: type, sfixed64 height and round, block id, timestamp, chain id."""
    parts = varint_field(1, commit.parts_total) + bytes_field(2, commit.parts_hash)
    block_id = bytes_field(1, commit.block_id) + bytes_field(2, parts)
    message = (
        varint_field(1, PRECOMMIT)
        + fixed_field(2, commit.height)
        + fixed_field(3, commit.round)
        + bytes_field(4, block_id)
        + bytes_field(5, encode_time(parse_time(timestamp)), keep_empty=True)
        + bytes_field(6, chain_id.encode())
    )
    return encode_varint(len(message)) + message


def encode_block_id(given: dict[str, Any] | None) -> bytes:
    given = given or {}
    parts = given.get("part_set_header") or given.get("parts") or {}
    inner = varint_field(1, int(parts.get("total") or 0)) + bytes_field(2, bytes.fromhex(parts.get("hash") or ""))
    return bytes_field(1, bytes.fromhex(given.get("hash") or "")) + bytes_field(2, inner, keep_empty=True)


def parse_time(text: str) -> tuple[int, int]:
    """RFC 3339 in UTC as (seconds, nanoseconds)."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return timegm(strptime(whole, "%Y-%m-%dT%H:%M:%S")), int(fraction.ljust(9, "0") or 0)


def to_ms(text: str) -> int:
    seconds, nanos = parse_time(text)
    return seconds * 1_000 + nanos // 1_000_000


def encode_time(time: tuple[int, int]) -> bytes:
    return varint_field(1, time[0]) + varint_field(2, time[1])


def encode_varint(value: int) -> bytes:
    value &= 2**64 - 1
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def varint_field(number: int, value: int) -> bytes:
    return b"" if value == 0 else bytes([number << 3]) + encode_varint(value)


def fixed_field(number: int, value: int) -> bytes:
    return b"" if value == 0 else bytes([number << 3 | 1]) + value.to_bytes(8, "little")


def bytes_field(number: int, data: bytes, *, keep_empty: bool = False) -> bytes:
    return b"" if not data and not keep_empty else bytes([number << 3 | 2]) + encode_varint(len(data)) + data
