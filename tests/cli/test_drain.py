"""`llb drain --wait` beside a daemon: how long it waits, and what it says where it may not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llb_core.errors import NotCarriedOut
from llb_core.model import Order, ServiceBackend
from llb_core.orders import Selection
from llb_core.run_folder import RunFolder
from tests.api.answers import Answering
from tests.cli.conftest import Llb, served
from tests.cli.test_commands import RIGHT

BACKEND = "10.0.0.2:8080"
NOT_YET = "the order stands, but is not carried out yet: a map is full: it is tried again"


class Daemon(Answering):
    """Has a connection of the backend that is drained until `looks` have been taken at it."""

    def __init__(self) -> None:
        self.looks = 2
        self.fails = False
        self.on_look: Callable[[], object] = lambda: None

    async def order(self, selection: Selection, order: Order) -> frozenset[ServiceBackend]:
        """Take the order, and perhaps fail to carry it out."""
        if self.fails:
            raise NotCarriedOut(NOT_YET)
        return await super().order(selection, order)

    async def backends(self) -> dict[str, Any]:
        """Say whether it is drained yet."""
        self.looks -= 1
        self.on_look()
        order = {"order": "drain", "done": None if self.looks > 0 else 5.0}
        other = {"service": "web", "backend": "10.0.0.3:8080", "mode": "active", "orders": []}
        drained = {"service": "web", "backend": BACKEND, "mode": "draining", "orders": [order]}
        return {"source": "daemon", "backends": [drained, other]}


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    answering = Daemon()
    monkeypatch.setattr(RunFolder, "socket", tmp_path / "llb.sock")
    with served((tmp_path / "llb.sock", answering)):
        yield answering


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llb.toml"
    path.write_text(RIGHT)
    return path


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
def test_an_interrupted_wait_says_that_the_drain_stands_and_what_takes_it_back(
    llb: Llb, daemon: Daemon, config: Path, number: int, code: int
) -> None:
    daemon.on_look = lambda: os.kill(os.getpid(), number)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # Not to end the tests.
    try:
        done = llb("drain", BACKEND, "--service", "web", "--wait", "-c", config)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)

    assert (done.code, done.out) == (code, f"web: {BACKEND} is drained\n")
    undrain = f"llb undrain {BACKEND} --service web --config {config}"
    assert done.err.strip() == f"llb: nobody waits any more, and the drain stands: {undrain}"


def test_an_order_that_is_not_carried_out_yet_is_waited_for(
    llb: Llb, daemon: Daemon, config: Path
) -> None:
    daemon.fails = True

    done = llb("drain", "10.0.0.2", "--wait", "-c", config)

    assert (done.code, done.err) == (0, f"llb: {NOT_YET}\n")
    assert done.out == f"web: {BACKEND} has no connections left\n"

    refused = llb("drain", "10.0.0.2", "-c", config)
    assert (refused.code, refused.out, refused.err) == (1, "", f"llb: {NOT_YET}\n")
