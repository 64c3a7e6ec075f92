"""Changes on the command line, on a chain of one validator: what it proposes is approved at once."""

from pathlib import Path

import pytest

from flockchain.cli.changes import parse_settings, parse_time_ms
from flockchain.errors import Refused
from flockchain.types.change import Setting
from tests.cli.conftest import Network
from tests.support.command import Shell
from tests.support.processes import wait_until


def owner(network: Network) -> list[str | Path]:
    return ["--key", "owner0", "--home", network.home, "--index", "0"]


def test_a_parameter_is_proposed_approved_and_in_force(shell: Shell, network: Network) -> None:
    words = ["tx", "propose-change", *owner(network), "--set", "fees.min_fee_uflk=0.00015 FLK", "--reason", "spam"]
    assert shell.must(*words)["code"] == "ok"
    (change,) = shell.must("query", "changes", "--home", network.home)["items"]
    assert change["settings"] == [{"path": "fees.min_fee_uflk", "value": 150}]

    def is_in_force() -> bool:
        params = shell.must("query", "params", "--home", network.home)
        return bool(params["fees"]["min_fee_uflk"] == 150)

    wait_until(is_in_force, 20)
    table = shell("query", "changes", "--home", network.home).out
    assert "fees.min_fee_uflk=150" in table
    assert max(map(len, table.splitlines())) <= 80
    one = shell("query", "changes", str(change["id"]), "--home", network.home).out
    assert "in force from block" in one
    assert max(map(len, one.splitlines())) <= 80
    late = shell("tx", "approve-change", *owner(network), "--change", str(change["id"]))
    assert late.code == 1
    assert "refused (change-closed)" in late.err
    past = shell.must("query", "params", "--height", "1", "--home", network.home)
    assert past["fees"]["min_fee_uflk"] == 100


def test_a_scheduled_upgrade_is_shown_and_cancelled(shell: Shell, network: Network) -> None:
    words = ["tx", "propose-change", *owner(network), "--upgrade", "2", "--release", "flockchain 0.2.0"]
    assert shell.must(*words, "--at-time", "2100-01-01T00:00:00+00:00")["code"] == "ok"
    items = shell.must("query", "changes", "--home", network.home)["items"]
    number = max(item["id"] for item in items)
    shown = shell("query", "changes", str(number), "--home", network.home).out
    assert "protocol version 2 from 4102444800000 ms on" in shown
    assert "flockchain 0.2.0" in shown
    assert shell.must("tx", "propose-change", *owner(network), "--cancel", number)["code"] == "ok"
    assert shell.must("query", "changes", str(number), "--home", network.home)["status"] == "void"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--set", "fees.min_fee_uflk"], 1, "give PATH=VALUE"),
        (["--set", "fees.min_fee_uflk=lots"], 1, "'lots' is not uflk"),
        (["--set", "fees.tip=1"], 1, "there is no parameter 'fees.tip'"),
        (["--set", "stake.unbonding_ms=1h"], 1, "need trusting_period_ms < evidence_age_ms < unbonding_ms"),
        ([], 2, "give --set, --upgrade or --cancel, one of the three"),
        (["--set", "fees.min_fee_uflk=1", "--cancel", "3"], 2, "one of the three"),
        (["--upgrade", "2"], 2, "--upgrade needs --at-height or --at-time"),
        (["--cancel", "3", "--release", "x"], 2, "belong to --upgrade"),
        (["--upgrade", "2", "--at-time", "tomorrow"], 1, "'tomorrow' is no time"),
        (["--cancel", "99"], 1, "change 99 does not wait to come into force"),
        (["--set", "fees.min_fee_uflk=1", "--within", "90d"], 1, "refused (bad-deadline)"),
    ],
)
def test_bad_input_gets_one_clear_line(
    shell: Shell, network: Network, words: list[str], code: int, sentence: str
) -> None:
    ran = shell("tx", "propose-change", *owner(network), *words)
    assert ran.code == code, ran.err
    assert len(ran.error_lines) == 1
    assert sentence in ran.err


def test_settings_and_times_as_people_write_them() -> None:
    assert parse_settings(["stake.jail_ms=10m", "fees.reserved_lane_ppm=40 %", "tasks.max_seats=21"]) == (
        Setting("fees.reserved_lane_ppm", 400_000),
        Setting("stake.jail_ms", 600_000),
        Setting("tasks.max_seats", 21),
    )
    assert parse_time_ms("4102444800000") == parse_time_ms("2100-01-01T02:00:00+02:00") == 4_102_444_800_000
    with pytest.raises(Refused, match="is no time"):
        parse_time_ms("2100-01-01T02:00:00")
