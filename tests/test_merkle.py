"""RFC 6962: the published tree of eight leaves, its audit paths, and every proof of every small tree."""

import pytest

from flockchain.crypto import sha256
from flockchain.merkle import EMPTY_ROOT, compute_proof, compute_root, hash_leaf, is_proof_valid

# Reference leaves, roots and paths of Certificate Transparency's own test suite.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
PATHS = {  # (leaf, size): audit path, from the leaf upwards
    (0, 1): (),
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
    (1, 5): (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots(size: int) -> None:
    assert compute_root(LEAVES[:size]).hex() == ROOTS[size]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert sha256(b"") == EMPTY_ROOT


@pytest.mark.parametrize("place", PATHS)
def test_the_published_audit_paths(place: tuple[int, int]) -> None:
    leaf, size = place
    hashes = [hash_leaf(data) for data in LEAVES[:size]]
    path = compute_proof(hashes, leaf)
    assert tuple(node.hex() for node in path) == PATHS[place]
    assert is_proof_valid(bytes.fromhex(ROOTS[size]), hashes[leaf], leaf, size, path)


def compute_root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\x00", leaves[0])
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01", compute_root_by_definition(leaves[:k]), compute_root_by_definition(leaves[k:]))


@pytest.mark.parametrize("size", range(1, 34))
def test_every_proof_of_a_small_tree_and_none_for_another_place(size: int) -> None:
    leaves = [bytes([i]) for i in range(size)]
    hashes = [hash_leaf(leaf) for leaf in leaves]
    root = compute_root(leaves)
    assert root == compute_root_by_definition(leaves)
    for leaf in range(size):
        path = compute_proof(hashes, leaf)
        assert is_proof_valid(root, hashes[leaf], leaf, size, path)
        for other in range(-1, size + 1):
            assert is_proof_valid(root, hashes[leaf], other, size, path) == (other == leaf)
        assert not is_proof_valid(root, hashes[leaf], leaf, size, [*path, bytes(32)])
        assert not is_proof_valid(root, hash_leaf(b"another"), leaf, size, path)
        if path:
            assert not is_proof_valid(root, hashes[leaf], leaf, size, path[:-1])
            assert not is_proof_valid(root, hashes[leaf], leaf, size, [sha256(b"x"), *path[1:]])


def test_an_inner_node_is_no_leaf() -> None:
    """Second preimage (RFC 6962, section 2.1): the prefixes tell leaves from nodes."""
    inner = compute_root(LEAVES[:2])
    assert compute_root([hash_leaf(LEAVES[0]) + hash_leaf(LEAVES[1])]) != inner
    assert compute_root(LEAVES[:3]) != compute_root([inner, hash_leaf(LEAVES[2])])
