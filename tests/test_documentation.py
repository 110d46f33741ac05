"""The documentation agrees with the code: keys, examples, commands and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.main import get_command

from llb_core.cli.app import application
from llb_core.config import parse
from llb_core.config_file import (
    ApiTable,
    GuardTable,
    HealthTable,
    LimitsTable,
    LoadBalancerTable,
    ServiceTable,
    TimeoutsTable,
)

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("llb_providers/*/*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md", "docs/configuration.md"])
def test_configurations_on_the_page_are_right(name: str) -> None:
    whole = [text for text in blocks(name, "toml") if "[loadbalancer]" in text]
    assert whole
    for text in whole:
        parse(text, Path("llb.toml"))


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("## `[loadbalancer]`", LoadBalancerTable),
        ("## `[api]`", ApiTable),
        ("## `[services.NAME]`", ServiceTable),
        ("### `[services.NAME.timeouts]`", TimeoutsTable),
        ("### `[services.NAME.health]`", HealthTable),
        ("### `[services.NAME.guard]`", GuardTable),
        ("### `[services.NAME.limits]`", LimitsTable),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_key_is_documented_and_no_other(heading: str, table: type[BaseModel]) -> None:
    section = page("docs/configuration.md").split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]
    documented = set(re.findall(r"^\| `(\w+)` ", section, re.MULTILINE))
    keys = {
        name
        for name in table.model_fields
        if name not in ("timeouts", "provider", "health", "guard", "limits")
    }
    assert documented == keys


def test_every_command_on_a_page_exists() -> None:
    known = set(get_command(application()).commands)  # type: ignore[attr-defined]
    named = {
        command
        for path in PAGES
        for command in re.findall(r"(?:`|^# |^)llb ([a-z]+)", path.read_text(), re.MULTILINE)
    }
    assert named <= known


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert [link for link in relative_links(path) if not (path.parent / link).exists()] == []


def relative_links(path: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:", "#")):
            yield target.split("#")[0]
