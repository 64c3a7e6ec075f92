"""Genesis: the document from which every node builds the same first state.

People read and write JSON (addresses ``flk1...``, hashes and keys in hex, amounts in uflk, times in ms); the chain
hashes its canonical bytes. `genesis/README.md` explains each field.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
from nacl.signing import SigningKey

from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import (
    format_address,
    is_signature_valid,
    parse_address,
    sha256,
    sign,
    signing_context,
)
from flockchain.errors import Malformed, Refused
from flockchain.params import Params, check_params
from flockchain.types.chain import POSSESSION_PURPOSE
from flockchain.types.ids import Address, Hash, Ms, PublicKey, Signature, Text, Uflk

MAX_SUPPLY_UFLK = 2**60
"""Sums of any two amounts, and proposer priorities of twice the power, stay within 63 bits."""
MAX_GENESIS_BYTES = 256 * 2**20
CHAIN_ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")


class GenesisAccount(Canonical, frozen=True):
    address: Address
    balance_uflk: Uflk


class GenesisValidator(Canonical, frozen=True):
    owner: Address
    public_key: PublicKey
    possession: Signature
    """By the consensus key over the owner's address (`sign_possession`)."""
    bond_uflk: Uflk
    """On top of the owner's balance."""
    beacon_head: Hash
    name: Text


class Genesis(Canonical, frozen=True):
    """Accounts sorted by address, validators by public key, neither twice."""

    chain_id: str
    time_ms: Ms
    params: Params
    accounts: tuple[GenesisAccount, ...]
    validators: tuple[GenesisValidator, ...]

    def hash(self) -> bytes:
        return sha256(encode(self))

    @property
    def supply_uflk(self) -> int:
        return sum(a.balance_uflk for a in self.accounts) + sum(v.bond_uflk for v in self.validators)


def possession_context(chain_id: str) -> bytes:
    """Signing context of a proof of possession.

    It names the chain id, not the genesis hash, because genesis itself holds such proofs.
    """
    return signing_context(POSSESSION_PURPOSE, sha256(chain_id.encode()))


def sign_possession(key: SigningKey, chain_id: str, owner: bytes) -> bytes:
    """Proof that whoever bonds for `owner` holds the consensus key: else one could register the key of another."""
    return sign(key, possession_context(chain_id), owner)


def check_possession(chain_id: str, public_key: bytes, owner: bytes, proof: bytes) -> None:
    if not is_signature_valid(public_key, possession_context(chain_id), owner, proof):
        raise Refused(
            "bad-possession",
            f"the consensus key {public_key.hex()} did not sign its owner {format_address(owner)}: make the proof "
            "with the validator's own key",
        )


def check_genesis(genesis: Genesis) -> None:
    """Refuse a document from which no sound chain can start."""
    if not CHAIN_ID_PATTERN.fullmatch(genesis.chain_id):
        raise Refused("bad-genesis", f"chain id {genesis.chain_id[:64]!r}: 1 to 50 of a-z, 0-9 and '-' are allowed")
    if genesis.time_ms == 0:
        raise Refused("bad-genesis", "time_ms is 0: it is the genesis time in milliseconds since 1970")
    check_params(genesis.params)
    addresses = [account.address for account in genesis.accounts]
    _check_sorted_once("accounts", addresses, [format_address(address) for address in addresses])
    keys = [validator.public_key for validator in genesis.validators]
    _check_sorted_once("validators", keys, [key.hex() for key in keys])
    stake = genesis.params.stake
    if not 1 <= len(keys) <= stake.max_validators:
        raise Refused("bad-genesis", f"{len(keys)} validators: need 1 to stake.max_validators = {stake.max_validators}")
    for validator in genesis.validators:
        check_possession(genesis.chain_id, validator.public_key, validator.owner, validator.possession)
        if validator.bond_uflk < stake.min_validator_bond_uflk:
            raise Refused(
                "bad-genesis",
                f"bond of {validator.bond_uflk} uflk of validator {validator.public_key.hex()} is below the minimum "
                f"of {stake.min_validator_bond_uflk} uflk",
            )
    if genesis.supply_uflk > MAX_SUPPLY_UFLK:
        raise Refused("bad-genesis", f"supply of {genesis.supply_uflk} uflk exceeds {MAX_SUPPLY_UFLK} uflk")


def _check_sorted_once(what: str, keys: list[bytes], names: list[str]) -> None:
    for i in range(1, len(keys)):
        if keys[i] == keys[i - 1]:
            raise Refused("bad-genesis", f"{what}: {names[i]} is listed twice")
        if keys[i] < keys[i - 1]:
            raise Refused("bad-genesis", f"{what}: {names[i]} is out of order (sort by the bytes)")


# -- JSON -------------------------------------------------------------------------------------------------------------


def format_genesis(genesis: Genesis) -> str:
    """The JSON document, one key a line; `parse_genesis` gives back an equal `Genesis`."""
    document = {
        "chain_id": genesis.chain_id,
        "time_ms": genesis.time_ms,
        "params": _params_to_json(genesis.params),
        "accounts": [{"address": format_address(a.address), "balance_uflk": a.balance_uflk} for a in genesis.accounts],
        "validators": [
            {
                "owner": format_address(v.owner),
                "public_key": v.public_key.hex(),
                "possession": v.possession.hex(),
                "bond_uflk": v.bond_uflk,
                "beacon_head": v.beacon_head.hex(),
                "name": v.name,
            }
            for v in genesis.validators
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def parse_genesis(text: str) -> Genesis:
    """The genesis of a JSON document, checked; order of accounts and validators does not matter."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise Malformed(f"genesis is not JSON: {error}") from None
    fields = _fields("genesis", document, set(Genesis.__struct_fields__))
    genesis = Genesis(
        chain_id=fields["chain_id"],
        time_ms=fields["time_ms"],
        params=_params_from_json("params", Params, fields["params"]),
        accounts=tuple(sorted(map(_parse_account, _items("accounts", fields)), key=lambda a: a.address)),
        validators=tuple(sorted(map(_parse_validator, _items("validators", fields)), key=lambda v: v.public_key)),
    )
    try:
        genesis = decode(Genesis, encode(genesis))  # ranges and lengths
    except (OverflowError, TypeError) as error:
        raise Malformed(f"genesis: {error}") from None
    check_genesis(genesis)
    return genesis


def load_genesis(path: Path) -> Genesis:
    """Read and check a genesis file."""
    if path.stat().st_size > MAX_GENESIS_BYTES:
        raise Malformed(f"genesis file of {path.stat().st_size} bytes exceeds {MAX_GENESIS_BYTES}")
    return parse_genesis(path.read_text())


def save_genesis(genesis: Genesis, path: Path) -> None:
    path.write_text(format_genesis(genesis))


def _parse_account(item: Any) -> GenesisAccount:
    fields = _fields("accounts", item, set(GenesisAccount.__struct_fields__))
    return GenesisAccount(parse_address(str(fields["address"])), fields["balance_uflk"])


def _parse_validator(item: Any) -> GenesisValidator:
    fields = _fields("validators", item, set(GenesisValidator.__struct_fields__))
    return GenesisValidator(
        owner=parse_address(str(fields["owner"])),
        public_key=_parse_hex("public_key", fields["public_key"]),
        possession=_parse_hex("possession", fields["possession"]),
        bond_uflk=fields["bond_uflk"],
        beacon_head=_parse_hex("beacon_head", fields["beacon_head"]),
        name=fields["name"],
    )


def _items(name: str, fields: dict[str, Any]) -> list[Any]:
    if not isinstance(fields[name], list):
        raise Malformed(f"genesis: {name} must be a list")
    items: list[Any] = fields[name]
    return items


def _fields(where: str, item: Any, names: set[str]) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Malformed(f"genesis: {where} must hold objects with {', '.join(sorted(names))}")
    if set(item) != names:
        wrong = ", ".join(sorted(set(item) ^ names))
        raise Malformed(f"genesis: {where}: missing or unknown field: {wrong}")
    return item


def _parse_hex(name: str, text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        raise Malformed(f"genesis: {name} is not hex: {str(text)[:80]!r}") from None


def _params_to_json(value: Canonical) -> dict[str, Any]:
    items = ((name, getattr(value, name)) for name in value.__struct_fields__)
    return {name: _params_to_json(item) if isinstance(item, Canonical) else item for name, item in items}


def _params_from_json(where: str, kind: type[Any], item: Any) -> Any:
    """Left-out parameters have their default; unknown ones are refused, for a typo must not pass silently."""
    if not isinstance(item, dict):
        raise Malformed(f"genesis: {where} must be an object")
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    unknown = ", ".join(sorted(set(item) - set(defaults)))
    if unknown:
        raise Malformed(f"genesis: {where}: unknown parameter {unknown}")
    values: dict[str, Any] = {}
    for name, value in item.items():
        inner = defaults[name]
        is_group = isinstance(inner, Canonical)
        values[name] = _params_from_json(f"{where}.{name}", type(inner), value) if is_group else value
    return kind(**values)
