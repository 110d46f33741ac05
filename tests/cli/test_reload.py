"""`llb plan` and `llb reload` beside a daemon: what they show of its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llb_core.run_folder import RunFolder
from tests.api.answers import Answering
from tests.cli.conftest import Llb, served
from tests.cli.test_commands import RIGHT

COMPLAINT = "web: provider consul: connection refused: start it; what is installed stays"


class Daemon(Answering):
    """Would open a service, a provider of which fails."""

    def __init__(self, config: Path) -> None:
        self._config = config

    async def status(self) -> dict[str, Any]:
        """Say which file it runs with."""
        return await super().status() | {"config": str(self._config)}

    async def reload(self, *, dry_run: bool) -> dict[str, Any]:
        """Say what changes, and complain."""
        of = {"changes": ["open 203.0.113.10:80/tcp"], "complaints": [COMPLAINT]}
        return await super().reload(dry_run=dry_run) | of


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path, control = tmp_path / "llb.toml", tmp_path / "llb.sock"
    path.write_text(RIGHT)
    monkeypatch.setattr(RunFolder, "socket", control)
    with served((control, Daemon(path))):
        yield path


@pytest.mark.parametrize("command", ["plan", "reload", "reload --dry-run"])
def test_a_provider_that_fails_is_told_of_beside_the_changes(
    llb: Llb, config: Path, command: str
) -> None:
    done = llb(*command.split(), "-c", config)
    assert (done.code, done.out) == (0, "open 203.0.113.10:80/tcp\n")
    assert done.err == f"llb: {COMPLAINT}\n"

    done = llb(*command.split(), "--json", "-c", config)
    assert (done.code, json.loads(done.out)["complaints"]) == (0, [COMPLAINT])
