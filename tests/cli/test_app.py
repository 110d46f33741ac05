"""What is made ready for a call."""

from __future__ import annotations

import pytest
from typer.main import get_command

from llb_core.cli.app import COMMANDS, called_by


def commands(arguments: list[str]) -> list[str]:
    return list(get_command(called_by(arguments)).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_that_is_called_alone_is_made_ready(name: str) -> None:
    assert commands([name, "--help"]) == [name]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["statsu"], ["", "status"]])
def test_all_are_listed_where_none_is_called(arguments: list[str]) -> None:
    assert commands(arguments) == list(COMMANDS)
