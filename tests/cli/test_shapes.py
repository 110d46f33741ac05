"""What commands print with --json is what docs/json.md says: those that need no daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from llb_core.cli.app import application
from llb_core.cli.shapes import SHAPES
from llb_core.cli.shapes_page import write
from tests.cli.conftest import Llb
from tests.cli.test_commands import RIGHT

PAGE = Path(__file__).parents[2] / "docs" / "json.md"


def test_the_page_is_written_from_the_models() -> None:
    assert PAGE.read_text() == write(), (
        "run: .venv/bin/python -m llb_core.cli.shapes_page > docs/json.md"
    )


def takes_json(command: click.Command) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


def test_every_command_that_prints_json_is_on_the_page() -> None:
    found = set()
    commands: dict[str, Any] = get_command(application()).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        inner = getattr(command, "commands", {})
        found |= {f"{name} {each}" for each in inner if takes_json(inner[each])}
        found |= {name} if takes_json(command) else set()
    assert {each.partition(" --")[0] for each in SHAPES} == found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llb.toml"
    path.write_text(RIGHT)
    (tmp_path / "backends.toml").write_text('[[backends]]\naddress = "10.0.0.2"\nport = 80\n')
    return path


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("check", ("-c", "CONFIG")),
        ("doctor", ("-c", "CONFIG")),
        ("status --check", ("-c", "CONFIG")),
        ("providers", ()),
        ("providers list", ()),
        ("providers show", ("static",)),
        ("providers test", ("static", "-c", "CONFIG")),
        ("providers new", ("shape", "--folder", "FOLDER")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_command_prints_what_is_documented(
    llb: Llb, config: Path, tmp_path: Path, command: str, arguments: tuple[str, ...]
) -> None:
    replaced = {"CONFIG": config, "FOLDER": tmp_path / "new"}
    done = llb(*command.split(), "--json", *(replaced.get(each, each) for each in arguments))
    SHAPES[command][0].model_validate(json.loads(done.out), strict=True)
