"""Keys at rest: sealed, private, never replaced."""

import stat
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from flockchain.crypto import address_of
from flockchain.errors import Refused
from flockchain.keystore import Keystore


@pytest.fixture
def keystore(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "keystore")


def test_a_key_comes_back_with_its_passphrase(keystore: Keystore) -> None:
    key = SigningKey.generate()
    address = keystore.add("alice", key, b"correct horse")
    assert address == address_of(bytes(key.verify_key)) == keystore.address("alice")
    assert bytes(keystore.open("alice", lambda: b"correct horse")) == bytes(key)


def test_a_wrong_passphrase_opens_nothing(keystore: Keystore) -> None:
    keystore.create("alice", b"right")
    with pytest.raises(Refused, match="does not open key 'alice'"):
        keystore.open("alice", lambda: b"wrong")


def test_the_file_is_private_and_does_not_hold_the_seed(keystore: Keystore) -> None:
    key = SigningKey.generate()
    keystore.add("alice", key, b"right")
    path = keystore.folder / "alice.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert bytes(key).hex() not in path.read_text()


def test_an_entry_is_never_replaced(keystore: Keystore) -> None:
    address = keystore.create("alice", b"")
    with pytest.raises(Refused, match="already holds 'alice'"):
        keystore.create("alice", b"")
    assert keystore.address("alice") == address


def test_a_test_key_asks_for_no_passphrase(keystore: Keystore) -> None:
    address = keystore.create("devnet0", b"")

    def never() -> bytes:
        raise AssertionError("asked for a passphrase")

    assert address_of(bytes(keystore.open("devnet0", never).verify_key)) == address


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65])
def test_a_name_that_could_leave_the_folder_is_refused(keystore: Keystore, name: str) -> None:
    with pytest.raises(Refused, match="cannot name a key"):
        keystore.create(name, b"")


def test_a_broken_file_is_named(keystore: Keystore) -> None:
    keystore.create("alice", b"")
    (keystore.folder / "alice.json").write_text("{")
    with pytest.raises(Refused, match="not a keystore entry"):
        keystore.open("alice", lambda: b"")


def test_an_unknown_name_lists_the_known_ones(keystore: Keystore) -> None:
    keystore.create("alice", b"")
    with pytest.raises(Refused, match="there are: alice"):
        keystore.open("bob", lambda: b"")
