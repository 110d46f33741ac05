"""`llb doctor` beside a daemon: what it says of the daemon's providers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llb_core.run_folder import RunFolder
from tests.api.answers import Answering
from tests.cli.conftest import Llb, served
from tests.cli.test_commands import RIGHT


class Daemon(Answering):
    """Has a provider that is as the test says."""

    def __init__(self, **source: Any) -> None:
        self._source = source

    async def status(self) -> dict[str, Any]:
        """Say how it is."""
        status = await super().status()
        (web,) = status["services"]
        web["sources"][0] |= self._source
        return status


@pytest.mark.parametrize(
    ("source", "state", "found"),
    [
        ({}, "ok", "all answer"),
        ({"error": "refused"}, "warn", "web: provider static: refused"),
        ({"error": "refused", "is_ready": False}, "fail", "web: provider static: refused"),
        ({"is_ready": False}, "fail", "web: provider static: it has not answered yet"),
    ],
    ids=["well", "stale", "never answered", "silent"],
)
def test_a_provider_that_can_not_answer_is_found(
    llb: Llb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: dict[str, Any],
    state: str,
    found: str,
) -> None:
    config, control = tmp_path / "llb.toml", tmp_path / "llb.sock"
    config.write_text(RIGHT)
    monkeypatch.setattr(RunFolder, "socket", control)
    with served((control, Daemon(**source))):
        said = json.loads(llb("doctor", "-c", config, "--json").out)
    (finding,) = (each for each in said["findings"] if each["what"] == "providers")
    assert (finding["state"], finding["found"]) == (state, found)
    assert bool(finding["remedy"]) is (state != "ok")
