"""`top_k`: the largest values of a move alone, the rest zero and kept back for the next round.

    header, gaps, values: a gap is one byte for the zeros before a value, after a 255 for each whole 255 of them

Stich et al., "Sparsified SGD with Memory", arXiv:1809.07599. Without the memory most of a move is lost for good. Of
equal magnitudes the first is kept. The share is of all values of the adapter, not of each module.
"""

from dataclasses import dataclass, field

import numpy as np

from ml.canonical import Array
from ml.transport.int8 import Int8
from ml.transport.q4 import Q4

PPM = 1_000_000
SKIP = 255
HEADER_BYTES = 8
"""Number of values, then of gap bytes: unsigned, little endian, 4 bytes each."""


@dataclass(frozen=True)
class TopK:
    share_ppm: int = 62_500
    """How many of a million values are kept, at least one."""
    values: Int8 | Q4 = field(default_factory=Int8)

    def __post_init__(self) -> None:
        if not 0 < self.share_ppm <= PPM:
            raise ValueError(f"a share of {self.share_ppm} ppm is none: choose 1 to {PPM}")

    def project(self, steps: Array) -> Array:
        keep = max(1, steps.size * self.share_ppm // PPM)
        largest = np.argsort(-np.abs(steps), kind="stable")[:keep]
        found = np.zeros(steps.size, np.int8)
        found[largest] = self.values.project(steps[largest])
        return found

    def pack(self, values: Array) -> bytes:
        places = np.flatnonzero(values)
        zeros = np.diff(places, prepend=-1) - 1
        gaps = b"".join(bytes([SKIP] * (int(gap) // SKIP)) + bytes([int(gap) % SKIP]) for gap in zeros)
        header = len(places).to_bytes(4, "little") + len(gaps).to_bytes(4, "little")
        return header + gaps + self.values.pack(values[places])

    def unpack(self, data: bytes, count: int) -> Array:
        if len(data) < HEADER_BYTES:
            raise ValueError(f"{len(data)} bytes hold no header of {HEADER_BYTES}")
        kept, size = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
        gaps = np.frombuffer(data[HEADER_BYTES : HEADER_BYTES + size], np.uint8)
        if kept > count or len(gaps) != size or np.count_nonzero(gaps != SKIP) != kept or (size and gaps[-1] == SKIP):
            raise ValueError(f"{size} bytes of gaps do not place {kept} of {count} values")
        # Each gap byte moves on by itself, and by one more where a value stands.
        places = np.cumsum(gaps.astype(np.int64) + (gaps != SKIP))[gaps != SKIP] - 1
        if kept and places[-1] >= count:
            raise ValueError(f"the last value stands at {places[-1]} of {count}")
        found = np.zeros(count, np.int8)
        found[places] = self.values.unpack(data[HEADER_BYTES + size :], kept)
        if np.count_nonzero(found) != kept:
            raise ValueError("a value that is kept is zero")
        return found
