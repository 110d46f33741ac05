"""`llb doctor` beside a daemon: what it says of the daemon's providers."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from llb_core.cli import doctor
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


def _daemon(llb: Llb, config: Path) -> tuple[str, str, str]:
    said = json.loads(llb("doctor", "-c", config, "--json").out)
    (finding,) = (each for each in said["findings"] if each["what"] == "daemon")
    return finding["state"], finding["found"], finding["remedy"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llb.toml"
    path.write_text(RIGHT)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Where a daemon's files would be."""
    folder = RunFolder("no-such-balancer", tmp_path)
    monkeypatch.setattr(RunFolder, "socket", folder.socket)
    monkeypatch.setattr(RunFolder, "lock_file", folder.lock_file)
    return folder


def test_a_daemon_that_hangs_is_told_from_none(
    llb: Llb, config: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", 0.1)
    assert _daemon(llb, config) == ("warn", "none runs", "llb run")
    with folder.locked(), socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(folder.socket))
        deaf.listen()
        found, remedy = f"pid {os.getpid()} does not answer", "look at its log, and restart it"
        assert _daemon(llb, config) == ("fail", found, remedy)
    assert _daemon(llb, config) == ("warn", "none runs", "llb run"), "the lock's file is left"


@pytest.mark.parametrize("command", ["status", "backends", "connections", "why", "plan"])
def test_whoever_may_not_ask_is_told_so(
    llb: Llb, config: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def refuse(_: socket.socket, path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    done = llb(command, "-c", config)
    refusal = f"llb: {folder.socket}: you may not ask the daemon: run as root\n"
    assert (done.code, done.out, done.err) == (1, "", refusal)
    assert _daemon(llb, config) == ("warn", "you may not ask it", "run llb doctor as root")
