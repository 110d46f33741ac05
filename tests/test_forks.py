"""What a process that is forked from ours has of it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llb_core.forks import keep_from_children
from llb_core.run_folder import RunFolder

Fork = Callable[[], int]


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Fork children that do nothing, from a thread as a provider's is; they are killed."""
    children: list[int] = []

    def forked() -> int:
        def run() -> None:
            if not (child := os.fork()):
                os.write(ready, b"!")
                threading.Event().wait()
            children.append(child)

        is_ready, ready = os.pipe()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        os.read(is_ready, 1)
        os.close(is_ready)
        os.close(ready)
        return children[-1]

    yield forked
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_child_holds_no_lock(tmp_path: Path, fork: Fork) -> None:
    folder = RunFolder("lb", tmp_path)
    with folder.locked():
        fork()
    with folder.locked():
        pass


def test_a_child_holds_no_connection(fork: Fork) -> None:
    ours, theirs = socket.socketpair()
    closed = socket.socket()
    keep_from_children(ours)
    keep_from_children(closed)
    closed.close()
    with ours:
        fork()
    with theirs:
        theirs.settimeout(30)
        assert theirs.recv(1) == b""


def test_a_signal_to_a_child_is_none_to_us(fork: Fork) -> None:
    lock, other = socket.socketpair()
    keep_from_children(lock)
    hears, rings = socket.socketpair()
    rings.setblocking(False)
    hears.setblocking(False)
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    bell = signal.set_wakeup_fd(rings.fileno())
    try:
        child = fork()
        os.kill(child, signal.SIGTERM)
        found = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert found is not None
        assert found.si_status == signal.SIGTERM, "it has no handler of ours"
        with pytest.raises(BlockingIOError):
            hears.recv(1)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        signal.set_wakeup_fd(bell)
        signal.signal(signal.SIGTERM, handler)
        for each in (lock, other, hears, rings):
            each.close()
