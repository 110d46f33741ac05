"""What is made ready for a call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("is_buffered", [True, False])
def test_a_full_disk_under_the_output_is_told_in_a_line(is_buffered: bool) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "" if is_buffered else "1"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "llb_core", "providers", "list", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "llb: standard output: No space left on device: the answer is lost, not what was done\n"
    )


def test_where_both_outputs_are_full_a_check_gives_its_finding_all_the_same() -> None:
    script = (
        "from llb_core import cli; from llb_core.cli import status_check;"
        "status_check._look = lambda *_, **__: ('daemon', ['web'], {});"
        "cli.main()"
    )
    with Path("/dev/full").open("w") as full:
        codes = [
            subprocess.run(
                [sys.executable, "-c", script, "status", "--check", *more],
                stdout=full, stderr=full, check=False,
            ).returncode
            for more in ([], ["--json"])
        ]  # fmt: skip
    assert codes == [0, 0]


def test_what_the_output_cannot_encode_is_written_all_the_same() -> None:
    script = (
        "import sys; from llb_core import cli\n"
        "try: cli.main()\n"
        "except SystemExit: print('a \u2192 b')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--version"],
        capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == [rb"a \u2192 b"], done.stderr
