"""`int8`: the update as it is, one byte a value."""

from dataclasses import dataclass

import numpy as np

from ml.canonical import Array
from ml.spec import UPDATE_LIMIT
from ml.transport import round_to


@dataclass(frozen=True)
class Int8:
    def project(self, steps: Array) -> Array:
        return round_to(steps, UPDATE_LIMIT)

    def pack(self, values: Array) -> bytes:
        assert values.dtype == np.int8
        return values.tobytes()

    def unpack(self, data: bytes, count: int) -> Array:
        if len(data) != count:
            raise ValueError(f"{count} values need {count} bytes, not {len(data)}")
        values = np.frombuffer(data, np.int8)
        if count and values.min() < -UPDATE_LIMIT:
            raise ValueError("-128 never occurs in an update")
        return values.copy()
