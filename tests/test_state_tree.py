"""The state tree equals its recursive definition, in whatever order it was built, and its proofs hold."""

import random
from hashlib import sha256

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flockchain.codec import decode, encode
from flockchain.state_tree import EMPTY_STATE_ROOT, StateTree, is_state_proof_valid

KEYS = [f"key {i}".encode() for i in range(60)]
values = st.binary(max_size=3)
changes = st.dictionaries(st.sampled_from(KEYS), st.none() | values, max_size=40)


def compute_naive_root(content: dict[bytes, bytes]) -> bytes:
    """The definition in the module's docstring, letter by letter."""
    leaves = {sha256(key).digest(): sha256(value).digest() for key, value in content.items()}

    def root_of(keys: list[bytes], depth: int) -> bytes:
        if not keys:
            return bytes(32)
        if len(keys) == 1:
            return sha256(b"\x00" + keys[0] + leaves[keys[0]]).digest()
        sides: tuple[list[bytes], list[bytes]] = ([], [])
        for key in keys:
            sides[int.from_bytes(key, "big") >> (255 - depth) & 1].append(key)
        return sha256(b"\x01" + root_of(sides[0], depth + 1) + root_of(sides[1], depth + 1)).digest()

    return root_of(list(leaves), 0)


def make_tree(content: dict[bytes, bytes]) -> StateTree:
    tree = StateTree()
    tree.update(content)
    return tree


@settings(max_examples=200, deadline=None)
@given(st.lists(changes, max_size=6))
def test_after_every_batch_the_root_is_that_of_the_definition(batches: list[dict[bytes, bytes | None]]) -> None:
    tree, content = StateTree(), dict[bytes, bytes]()
    for batch in batches:
        tree.update(batch)
        for key, value in batch.items():
            if value is None:
                content.pop(key, None)
            else:
                content[key] = value
        assert tree.root == compute_naive_root(content)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), values), st.sampled_from(KEYS))
def test_a_proof_shows_the_value_or_the_absence_and_nothing_else(content: dict[bytes, bytes], key: bytes) -> None:
    tree = make_tree(content)
    proof, value = tree.prove(key), content.get(key)
    assert is_state_proof_valid(tree.root, key, value, proof)
    assert not is_state_proof_valid(tree.root, key, b"another value", proof)
    assert not is_state_proof_valid(sha256(tree.root).digest(), key, value, proof)
    if value is not None:
        assert not is_state_proof_valid(tree.root, key, None, proof)
    assert decode(type(proof), encode(proof)) == proof


def test_one_by_one_in_any_order_gives_the_root_of_one_batch() -> None:
    seed = 20_250_715
    generator = random.Random(seed)
    content = {generator.randbytes(8): generator.randbytes(20) for _ in range(300)}
    expected = make_tree(content).root
    for _ in range(3):
        tree, order = StateTree(), list(content.items())
        generator.shuffle(order)
        for key, value in order:
            tree.update({key: value})
        assert tree.root == expected, f"seed {seed}"


def test_removing_everything_leaves_the_empty_root() -> None:
    tree = make_tree(dict.fromkeys(KEYS, b"x"))
    for key in KEYS:
        tree.update({key: None})
    assert tree.root == EMPTY_STATE_ROOT


def test_the_tree_of_two_keys_is_pinned() -> None:
    tree = make_tree({b"a": b"1", b"b": b"2"})
    assert tree.root.hex() == "70a50295110313dd28320faccbee14d04dc2894e877a2e407115a2f337ed4efa"


def test_a_present_key_cannot_be_denied_by_the_leaf_of_another() -> None:
    content = dict.fromkeys(KEYS, b"x")
    tree = make_tree(content)
    for key in KEYS[1:]:
        truth = tree.prove(KEYS[0])
        path, value = sha256(key).digest(), sha256(b"x").digest()
        for depth in range(len(truth.siblings) + 1):
            lie = msgspec.structs.replace(
                truth, siblings=truth.siblings[depth:], other_key_hash=path, other_value_hash=value
            )
            assert not is_state_proof_valid(tree.root, KEYS[0], None, lie)


def test_a_leaf_off_the_path_proves_no_absence() -> None:
    tree = make_tree({b"a": b"1", b"b": b"2", b"c": b"3"})
    present = tree.prove(b"a")
    absent = next(k for k in KEYS if sha256(k).digest()[0] >> 7 != sha256(b"a").digest()[0] >> 7)
    lie = msgspec.structs.replace(present, other_key_hash=sha256(b"a").digest(), other_value_hash=sha256(b"1").digest())
    assert not is_state_proof_valid(tree.root, absent, None, lie)


def test_proofs_of_wrong_size_are_not_valid() -> None:
    tree = make_tree({b"a": b"1"})
    proof = tree.prove(b"a")
    too_long = msgspec.structs.replace(proof, siblings=(bytes(32),) * 257)
    half_a_leaf = msgspec.structs.replace(proof, other_key_hash=bytes(32))
    assert not is_state_proof_valid(tree.root, b"a", b"1", too_long)
    assert not is_state_proof_valid(tree.root, b"z", None, half_a_leaf)
