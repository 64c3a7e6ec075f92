"""Sized byte strings and integers with their unit in the name."""

from typing import Annotated

from msgspec import Meta

I63_MAX = 2**63 - 1

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""sha256 digest."""
OptionalHash = Annotated[bytes, Meta(max_length=32)]
"""sha256 digest, or empty bytes for none (nil)."""
Address = Annotated[bytes, Meta(min_length=20, max_length=20)]
OptionalAddress = Annotated[bytes, Meta(max_length=20)]
"""Address, or empty bytes for none."""
PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
UInt = Annotated[int, Meta(ge=0, le=I63_MAX)]
Int = Annotated[int, Meta(ge=-I63_MAX, le=I63_MAX)]
Uflk = UInt
"""Money: millionths of one FLK."""
Ms = UInt
"""Milliseconds; a point in time counts from the Unix epoch."""
Ppm = UInt
"""Parts per million."""
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]*$")]
Slug = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Text = Annotated[str, Meta(max_length=256)]
