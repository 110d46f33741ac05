"""The init system hears what it wants to hear."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from llb_core import init_system


@pytest.mark.parametrize("is_abstract", [False, True], ids=["path", "abstract"])
def test_tells_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool
) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + path if is_abstract else path)
        listener.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + path if is_abstract else path)
        init_system.tell("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_does_not_wait_for_one_that_takes_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(init_system, "PATIENCE", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        for _ in range(int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 5):
            init_system.tell("WATCHDOG=1")  # Returns, or this test never ends.
        assert listener.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify"])
def test_goes_on_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    init_system.tell("READY=1")
