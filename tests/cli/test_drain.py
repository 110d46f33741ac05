"""Orders beside a daemon: how long `llb drain --wait` waits, and what each says where it may not
wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llb_core.ending import Ended
from llb_core.errors import NotCarriedOut
from llb_core.model import Order, OrderKind, ServiceBackend
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
        self.is_undrained = False
        self.on_order: Callable[[], object] = lambda: None
        self.on_look: Callable[[], object] = lambda: None

    async def order(self, selection: Selection, order: Order) -> frozenset[ServiceBackend]:
        """Take the order, and perhaps fail to carry it out."""
        self.on_order()
        if self.fails:
            raise NotCarriedOut(NOT_YET)
        return await super().order(selection, order)

    async def take_back(
        self, selection: Selection, kind: OrderKind, by: str, why: str
    ) -> frozenset[ServiceBackend]:
        """Take one back."""
        self.on_order()
        return await super().take_back(selection, kind, by, why)

    async def kill_of_backend(self, selection: Selection, by: str, why: str) -> Ended:
        """End those of a backend."""
        self.on_order()
        return await super().kill_of_backend(selection, by, why)

    async def backends(self) -> dict[str, Any]:
        """Say whether it is drained yet."""
        self.looks -= 1
        self.on_look()
        order = {"order": "drain", "done": None if self.looks > 0 else 5.0}
        other = {"service": "web", "backend": "10.0.0.3:8080", "mode": "active", "orders": []}
        drained = {"service": "web", "backend": BACKEND, "mode": "draining"}
        drained["orders"] = [] if self.is_undrained else [order]
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


@contextmanager
def ended_by_no_sigterm() -> Iterator[None]:
    """Have SIGTERM not end the tests, and be as before afterwards."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


INTERRUPTED = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)


@INTERRUPTED
def test_an_interrupted_wait_says_that_the_drain_stands_and_what_takes_it_back(
    llb: Llb, daemon: Daemon, config: Path, number: int, code: int
) -> None:
    daemon.on_look = lambda: os.kill(os.getpid(), number)
    with ended_by_no_sigterm():
        done = llb("drain", BACKEND, "--service", "web", "--wait", "-c", config)

    assert (done.code, done.out) == (code, f"web: {BACKEND} is drained\n")
    undrain = f"llb undrain {BACKEND} --service web --config {config}"
    assert done.err.strip() == f"llb: nobody waits any more, and the drain stands: {undrain}"


@INTERRUPTED
def test_one_that_still_asks_says_that_the_drain_may_stand(
    llb: Llb, daemon: Daemon, config: Path, number: int, code: int
) -> None:
    daemon.on_order = lambda: os.kill(os.getpid(), number)
    with ended_by_no_sigterm():
        done = llb("drain", BACKEND, "--wait", "-c", config)

    assert (done.code, done.out) == (code, "")
    undrain = f"llb undrain {BACKEND} --config {config}"
    assert done.err.strip() == f"llb: nobody waits any more, and the drain may stand: {undrain}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("drain B -s web", "the drain may stand: llb undrain B --service web"),
        ("disable B", "the order may stand: llb enable B"),
        ("weight B 5", "the order may stand: llb weight B provider"),
        ("weight B provider", "it may be carried out all the same: llb backends"),
        ("undrain B", "it may be carried out all the same: llb backends"),
        ("enable B", "it may be carried out all the same: llb backends"),
        ("kill --backend B", "connections may be ended all the same: llb connections"),
    ],
)
def test_an_interrupted_order_says_what_may_stand_and_what_takes_it_back(
    llb: Llb, daemon: Daemon, config: Path, words: str, told: str
) -> None:
    daemon.on_order = lambda: os.kill(os.getpid(), signal.SIGINT)

    done = llb(*words.replace("B", BACKEND).split(), "-c", config)

    said = f"llb: nobody waits any more, and {told.replace('B', BACKEND)} --config {config}\n"
    assert (done.code, done.out, done.err) == (130, "", said)


@pytest.mark.parametrize("json", [False, True], ids=["text", "json"])
def test_one_that_is_undrained_before_it_is_carried_out_is_no_success(
    llb: Llb, daemon: Daemon, config: Path, json: bool
) -> None:
    daemon.fails = daemon.is_undrained = True

    done = llb("drain", "10.0.0.2", "--wait", "-c", config, *(["--json"] if json else []))

    assert (done.code, done.out) == (1, "")
    assert done.err == f"llb: {NOT_YET}\nllb: 10.0.0.2 is drained no longer\n"


def test_an_order_that_is_not_carried_out_yet_is_waited_for(
    llb: Llb, daemon: Daemon, config: Path
) -> None:
    daemon.fails = True

    done = llb("drain", "10.0.0.2", "--wait", "-c", config)

    assert (done.code, done.err) == (0, f"llb: {NOT_YET}\n")
    assert done.out == f"web: {BACKEND} has no connections left\n"

    refused = llb("drain", "10.0.0.2", "-c", config)
    assert (refused.code, refused.out, refused.err) == (1, "", f"llb: {NOT_YET}\n")
