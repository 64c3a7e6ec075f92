"""What a `propose-change` asks for: other parameters, another protocol version at a stated moment."""

from typing import Annotated

from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.types.ids import Ms, Text, UInt

MAX_SETTINGS = 32

Path = Annotated[str, Meta(min_length=1, max_length=64)]


class Setting(Canonical, frozen=True):
    """One parameter and its new value; `path` is such as ``fees.min_fee_uflk``."""

    path: Path
    value: UInt


Settings = Annotated[tuple[Setting, ...], Meta(max_length=MAX_SETTINGS)]
"""Sorted by path, none twice."""


class Upgrade(Canonical, frozen=True):
    """From a stated block on, headers carry `version` and blocks follow its rules; one of the moments is 0."""

    version: UInt
    release: Text
    """For people: the software that runs it, such as ``flockchain 0.2.0``."""
    height: UInt
    """The first block of the new version; 0: `time_ms` decides."""
    time_ms: Ms
    """The new version begins after the first block whose header time reaches this; 0: `height` decides."""
