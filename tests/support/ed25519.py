"""The curve's arithmetic, slowly and plainly, after RFC 8032, section 6: to build signatures that no library makes."""

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, P - 2, P) % P
_SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)

Point = tuple[int, ...]
"""Extended coordinates (X, Y, Z, T)."""
IDENTITY: Point = (0, 1, 1, 0)


def add(a: Point, b: Point) -> Point:
    e_a, e_b = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * _D % P, 2 * a[2] * b[2] % P
    e, f, g, h = e_b - e_a, d - c, d + c, e_b + e_a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def negate(a: Point) -> Point:
    return (-a[0] % P, a[1], a[2], -a[3] % P)


def scale(point: Point, scalar: int) -> Point:
    total = IDENTITY
    while scalar > 0:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def encode_point(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode_point(data: bytes) -> Point:
    """The point of a canonical encoding."""
    y = int.from_bytes(data, "little")
    sign_bit, y = y >> 255, y & (1 << 255) - 1
    assert y < P
    square = (y * y - 1) * pow(_D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _SQRT_MINUS_1 % P
    assert (x * x - square) % P == 0, "not on the curve"
    if x & 1 != sign_bit:
        x = P - x
    return (x, y, 1, x * y % P)


_BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def multiply_base(scalar: int) -> Point:
    return scale(_BASE, scalar)


def derive_scalar(seed: bytes) -> tuple[int, bytes]:
    """Secret scalar and nonce prefix of a 32-byte seed."""
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar, digest[32:]


def hash_to_scalar(r: bytes, public_key: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public_key + message).digest(), "little") % ORDER
