"""RFC 8032's signatures, our accept table for Ed25519's edge cases, signing contexts and addresses.

Libraries disagree on these edge cases (Chalkias, Garillot, Nikolaenko: "Taming the many EdDSAs", 2020), and two rules
on one chain are a fork: what libsodium accepts through PyNaCl is pinned here. The cases are built from the curve's own
arithmetic (RFC 8032, section 6), not copied.
"""

import hashlib

import pytest
from nacl.signing import SigningKey

from flockchain.crypto import (
    ADDRESS_BYTES,
    address_of,
    format_address,
    is_signature_valid,
    parse_address,
    sign,
    signing_context,
)
from flockchain.errors import Malformed
from tests.support.ed25519 import (
    IDENTITY,
    ORDER,
    P,
    add,
    decode_point,
    derive_scalar,
    encode_point,
    hash_to_scalar,
    multiply_base,
    negate,
    scale,
)

CONTEXT = signing_context("test", bytes(32))

# RFC 8032, section 7.1: seed, public key, message, signature
RFC_8032 = {
    "TEST 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "TEST SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}


@pytest.mark.parametrize("name", RFC_8032)
def test_the_signatures_of_rfc_8032(name: str) -> None:
    seed, public_key, message, signature = (bytes.fromhex(text) for text in RFC_8032[name])
    key = SigningKey(seed)
    assert bytes(key.verify_key) == public_key
    assert bytes(key.sign(message).signature) == signature
    assert is_signature_valid(public_key, b"", message, signature)
    assert not is_signature_valid(public_key, b"", message + b"\x00", signature)
    for index in (0, 31, 32, 63):
        broken = bytearray(signature)
        broken[index] ^= 1
        assert not is_signature_valid(public_key, b"", message, bytes(broken))


def test_the_reference_arithmetic_signs_as_the_library() -> None:
    seed, public_key, message, signature = (bytes.fromhex(text) for text in RFC_8032["TEST 3"])
    scalar, prefix = derive_scalar(seed)
    assert encode_point(multiply_base(scalar)) == public_key
    assert (
        forge(scalar, public_key, message, int.from_bytes(hashlib.sha512(prefix + message).digest(), "little"))
        == signature
    )


def forge(scalar: int, public_key: bytes, message: bytes, nonce: int, *, shift: tuple[int, ...] | None = None) -> bytes:
    """A signature by the equation, with a point `shift` added to R."""
    point = multiply_base(nonce)
    r = encode_point(point if shift is None else add(point, shift))
    s = (nonce + hash_to_scalar(r, public_key, message) * scalar) % ORDER
    return r + s.to_bytes(32, "little")


# Small order: the eight points whose multiples by 8 are the identity, and the encodings of them that are not canonical.
TORSION = [decode_point(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03" + "7a"))]
while len(TORSION) < 8:
    TORSION.append(add(TORSION[-1], TORSION[0]))
SMALL_ORDER = [encode_point(point) for point in TORSION]
NON_CANONICAL = [(y | sign_bit << 255).to_bytes(32, "little") for y in range(P, 2**255) for sign_bit in (0, 1)] + [
    (1 | 1 << 255).to_bytes(32, "little"),
    (P - 1 | 1 << 255).to_bytes(32, "little"),
]
"""y not below 2^255 - 19 (38 encodings), and x = 0 with its sign bit set."""


def test_the_torsion_has_eight_points() -> None:
    assert len(set(SMALL_ORDER)) == 8
    assert all(encode_point(scale(point, 8)) == encode_point(IDENTITY) for point in TORSION)


def test_no_public_key_of_small_order_is_accepted_with_any_r_of_small_order() -> None:
    """The cofactorless equation holds for many of these with s = 0: each would be a signature of every message."""
    points = SMALL_ORDER + NON_CANONICAL
    accepted = [
        (a.hex(), r.hex())
        for a in points
        for r in points
        for message in (b"a message", b"another")
        if is_signature_valid(a, CONTEXT, message, r + bytes(32))
    ]
    assert accepted == []


SECRET, _ = derive_scalar(b"\x07" * 32)
HONEST = multiply_base(SECRET)
KEY = encode_point(HONEST)
MESSAGE = b"vote"
SIGNED = CONTEXT + MESSAGE


def is_accepted(public_key: bytes, signature: bytes) -> bool:
    return is_signature_valid(public_key, CONTEXT, MESSAGE, signature)


def test_an_honest_signature_is_accepted() -> None:
    assert is_accepted(KEY, forge(SECRET, KEY, SIGNED, 1234567))


@pytest.mark.parametrize("multiple", [1, 2, 7, 15])
def test_s_not_below_the_order_is_refused(multiple: int) -> None:
    """Malleability: the same signature with a second s (RFC 8032, section 5.1.7, step 1)."""
    signature = forge(SECRET, KEY, SIGNED, 1234567)
    s = int.from_bytes(signature[32:], "little") + multiple * ORDER
    assert s < 2**256
    assert not is_accepted(KEY, signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize("torsion", range(7))
def test_an_r_with_a_small_component_is_refused(torsion: int) -> None:
    """The equation times 8 holds (the cofactored rule would accept); without it, it does not."""
    assert not is_accepted(KEY, forge(SECRET, KEY, SIGNED, 1234567, shift=TORSION[torsion]))


def test_a_key_with_a_small_component_is_accepted_exactly_where_the_plain_equation_holds() -> None:
    """Key A + T with T of order 8: valid without cofactor when 8 divides the hash, about one signature in eight."""
    key = encode_point(add(HONEST, TORSION[0]))
    outcomes = []
    for nonce in range(1, 65):
        signature = forge(SECRET, key, SIGNED, nonce)
        holds = hash_to_scalar(signature[:32], key, SIGNED) % 8 == 0
        assert is_accepted(key, signature) == holds
        outcomes.append(holds)
    assert True in outcomes
    assert False in outcomes


def test_r_of_small_order_is_refused_even_where_the_equation_holds() -> None:
    """R = identity, s = k * a: a valid equation that only the owner of the key can make."""
    assert not is_accepted(KEY, forge(SECRET, KEY, SIGNED, 0))


@pytest.mark.parametrize("encoding", [data.hex() for data in NON_CANONICAL])
def test_a_key_in_non_canonical_form_is_refused(encoding: str) -> None:
    key = bytes.fromhex(encoding)
    assert not is_accepted(key, forge(SECRET, key, SIGNED, 99))


def test_a_negated_key_is_another_key() -> None:
    assert not is_accepted(encode_point(negate(HONEST)), forge(SECRET, KEY, SIGNED, 1234567))


@pytest.mark.parametrize(("key_bytes", "signature_bytes"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_wrong_lengths_are_no_signatures(key_bytes: int, signature_bytes: int) -> None:
    signature = forge(SECRET, KEY, SIGNED, 1234567)
    assert not is_accepted((KEY + b"\x00")[:key_bytes], (signature + b"\x00")[:signature_bytes])


# Contexts and addresses


def test_a_signature_is_bound_to_purpose_and_genesis() -> None:
    key = SigningKey(b"\x01" * 32)
    public_key = bytes(key.verify_key)
    context = signing_context("vote", bytes(32))
    signature = sign(key, context, MESSAGE)
    assert is_signature_valid(public_key, context, MESSAGE, signature)
    for other in (signing_context("proposal", bytes(32)), signing_context("vote", b"\x01" * 32)):
        assert not is_signature_valid(public_key, other, MESSAGE, signature)


def test_an_address_survives_writing_and_a_wrong_letter_does_not() -> None:
    address = address_of(KEY)
    assert len(address) == ADDRESS_BYTES
    text = format_address(address)
    assert text.startswith("flk1")
    assert parse_address(text) == parse_address(text.upper()) == address
    for index in range(4, len(text)):
        letter = "q" if text[index] != "q" else "p"
        with pytest.raises(Malformed):
            parse_address(text[:index] + letter + text[index + 1 :])
    for wrong in ("", "flk1", "cosmos1" + text[4:], text + "q", text[:-1], text[:6] + text[6:].upper()):
        with pytest.raises(Malformed):
            parse_address(wrong)
