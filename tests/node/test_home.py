"""A node's home: files, modes, configuration, and one process only."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from flockchain.devnet import create_devnet, find_free_base_port
from flockchain.errors import Fault, Refused
from flockchain.genesis import format_genesis
from flockchain.node.config import EXPLANATIONS, ApiConfig, Config, P2pConfig, format_config, load_config
from flockchain.node.home import HomeLock, create_home
from flockchain.node.key_file import load_key, save_key
from flockchain.node.opening import read_genesis
from flockchain.node.signer import PersistedSigner
from tests.support.ledger import make_genesis, make_key


def test_a_new_home_holds_private_keys_and_a_signer_that_never_signed(tmp_path: Path) -> None:
    home = create_home(tmp_path / "home", validator_key=make_key("val0"))
    for path in (home.node_key, home.validator_key, home.signer_state):
        assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(home.validator_key) == make_key("val0")
    assert load_key(home.node_key) != make_key("val0")
    PersistedSigner(load_key(home.validator_key), home.signer_state, b"g" * 32)
    assert load_config(home.config) == Config()


def test_a_home_is_never_made_over_another(tmp_path: Path) -> None:
    create_home(tmp_path)
    with pytest.raises(Refused, match="nothing was changed"):
        create_home(tmp_path)


def test_a_second_process_on_a_home_is_refused(tmp_path: Path) -> None:
    home = create_home(tmp_path)
    lock = HomeLock(home)
    with pytest.raises(Fault, match="two of them would sign twice"):
        HomeLock(home)
    lock.release()
    HomeLock(home).release()


def test_a_key_file_without_a_key_is_damaged_not_sealed(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text("{}")
    path.chmod(0o600)
    with pytest.raises(Fault, match="is damaged"):
        load_key(path)


def test_a_sealed_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    path = tmp_path / "validator_key.json"
    save_key(path, make_key("val0"), b"open sesame")
    assert bytes(make_key("val0")).hex() not in path.read_text()
    assert load_key(path, b"open sesame") == make_key("val0")
    with pytest.raises(Fault, match="does not open"):
        load_key(path, b"wrong")
    with pytest.raises(Fault, match="passphrase_file"):
        load_key(path)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node_key.json"
    save_key(path, make_key("node0"))
    path.chmod(0o644)
    with pytest.raises(Fault, match="chmod 600"):
        load_key(path)


@pytest.mark.parametrize("content", ["", "{}", '{"secret": "zz"}', '{"secret": "00"}'])
def test_a_damaged_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "node_key.json"
    save_key(path, make_key("node0"))
    path.write_text(content)
    with pytest.raises(Fault, match="damaged"):
        load_key(path)


def test_every_value_of_the_configuration_is_explained() -> None:
    config = Config()
    names = set(config.__struct_fields__)
    names |= {f"{section}.{name}" for section in names for name in getattr(config, section).__struct_fields__}
    assert names == set(EXPLANATIONS)
    text = format_config(config)
    assert all(explanation in text for explanation in EXPLANATIONS.values())


def test_a_configuration_reads_back_as_written(tmp_path: Path) -> None:
    config = Config(
        p2p=P2pConfig(listen="[::1]:5", persistent_peers=("127.0.0.1:1", 'odd"name\\:2')),
        api=ApiConfig(enabled=False),
    )
    (tmp_path / "config.toml").write_text(format_config(config))
    assert load_config(tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[p2p]\nlisten = 5", "p2p.listen"),
        ("[p2p]\nlisen = 'x'", r"\[p2p\] lisen is no setting of this version: .*correct it to one of listen, "),
        ("[statesync]\nenable = true", "statesync is no section of this version: .*one of p2p, "),
        ("p2p = 5", "p2p"),
        ("[p2p]\nlisten = '127.0.0.1'", "p2p.listen: '127.0.0.1' is no host:port"),
        ("[p2p]\npersistent_peers = ['north']", "p2p.persistent_peers: peer address 'north'"),
        ("[p2p]\npersistent_peers = ['flk1abc@north:5']", "p2p.persistent_peers: address 'flk1abc'"),
        ("[api]\nlisten = 'north:x'", "api.listen: 'north:x' is no host:port"),
        ("[mempool]\nmax_txs = 0", "mempool.max_txs"),
        ("[log]\nlevel = 'loud'", "log.level: Invalid enum value 'loud'. log.level is: debug, info, warning or error"),
        ("[p2p", "not TOML"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(Fault, match=problem):
        load_config(tmp_path / "config.toml")


def test_the_written_configuration_is_toml() -> None:
    assert tomllib.loads(format_config(Config()))["p2p"]["max_inbound"] == 40


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda text: text[:500], "genesis is not JSON"),
        (lambda text: text.replace('"time_ms"', '"time"'), "missing or unknown field: time, time_ms"),
        (lambda text: text.replace('"chain_id": "', '"chain_id": "another-'), "did not sign its owner"),
        (lambda text: "\udcff" + text, "can't decode byte"),
    ],
)
def test_a_spoilt_genesis_is_named_with_what_to_do(tmp_path: Path, spoil: Callable[[str], str], problem: str) -> None:
    path = tmp_path / "genesis.json"
    text = format_genesis(make_genesis())
    spoilt = spoil(text)
    assert spoilt != text
    path.write_bytes(spoilt.encode(errors="surrogateescape"))
    with pytest.raises(Fault, match=problem) as found:
        read_genesis(path)
    assert str(path) in str(found.value)
    assert "copy it again from another node, compare `flockchain genesis hash`" in str(found.value)


def test_each_node_of_a_large_devnet_may_connect_with_every_other(tmp_path: Path) -> None:
    devnet = create_devnet(tmp_path / "devnet", validators=20, base_port=find_free_base_port(20))
    p2p = load_config(devnet.node_home(19) / "config.toml").p2p
    assert len(p2p.persistent_peers) == 19
    assert min(p2p.max_inbound, p2p.max_outbound) >= 19
