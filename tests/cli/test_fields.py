"""Amounts as people write them."""

import pytest

from flockchain.cli.fields import find_line, read_amount
from flockchain.errors import Refused


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train_ms", 90, 90),
        ("train_ms", "90s", 90_000),
        ("train_ms", "1.5 h", 5_400_000),
        ("unbonding_ms", "21d", 21 * 86_400_000),
        ("pool_uflk", "500 FLK", 500_000_000),
        ("pool_uflk", "0.000001 flk", 1),
        ("tolerance_ppm", "2 %", 20_000),
        ("tolerance_ppm", "0.05%", 500),
        ("max_adapter_bytes", "8 MiB", 8 * 2**20),
    ],
)
def test_a_unit_is_understood(name: str, value: object, expected: int) -> None:
    assert read_amount(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_ms", "90"),
        ("train_ms", "-90s"),
        ("train_ms", "90 FLK"),
        ("train_ms", 1.5),
        ("train_ms", True),
        ("pool_uflk", "0.0000001 FLK"),
        ("pool_uflk", "99999999999999999 FLK"),
        ("seats", "3 seats"),
    ],
)
def test_what_is_no_amount_is_refused(name: str, value: object) -> None:
    with pytest.raises(Refused, match=name):
        read_amount(name, value)


def test_the_line_of_a_field() -> None:
    text = '{\n  "name": "x",\n  "phases": {\n    "train_ms": 1\n  }\n}'
    assert [find_line(text, name) for name in ("name", "phases", "train_ms", "absent")] == [2, 3, 4, 1]
    assert find_line('[phases]\ntrain_ms = "1m"\n', "train_ms") == 2
