"""Every command explains itself: an example, --json, 80 columns, no colour in a pipe."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from flockchain.cli import app
from tests.support.command import Shell

WITHOUT_JSON = {("start",)}
"""Runs until it is stopped; its logs are lines of their own."""


def walk(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_its_help_names_an_example_within_80_columns(shell: Shell, path: tuple[str, ...]) -> None:
    ran = shell(*path, "--help")
    assert ran.code == 0
    text = " ".join(ran.out.split())
    example = re.search(rf"Example: flockchain {' '.join(path)}\b", text)
    assert example, text[:400]
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    assert "\x1b[" not in ran.out


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_example_uses_options_that_exist(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    example = command.help.partition("Example: ")[2]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", example)) <= known


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_it_speaks_json(path: tuple[str, ...]) -> None:
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert ("--json" in options) is (path not in WITHOUT_JSON)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_option_takes_a_secret(path: tuple[str, ...]) -> None:
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert not options & {"--passphrase", "--password", "--seed-hex", "--private-key", "--secret", "--mnemonic"}


@pytest.mark.parametrize("group", ["keys", "query", "tx", "devnet", "genesis", "adapter"])
def test_a_group_alone_shows_its_commands_and_is_wrong_usage(shell: Shell, group: str) -> None:
    ran = shell(group)
    assert ran.code == 2
    assert "Commands" in ran.out + ran.err


def test_the_version(shell: Shell) -> None:
    ran = shell("--version")
    assert (ran.code, ran.out.split()[0]) == (0, "flockchain")
