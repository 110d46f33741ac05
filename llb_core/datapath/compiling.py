"""Compile the classifier, also for a daemon that has given up what that takes.

bcc opens pinned maps by their ids, which takes CAP_SYS_ADMIN, and a reload may add an address
family. So a helper, forked before anything else, keeps that capability, and does this alone: told a
family's number, it hands back the programs of that family.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator

from llb_core import capabilities
from llb_core.datapath import pins
from llb_core.datapath.layout import compile_flags
from llb_core.datapath.loader import load_programs
from llb_core.errors import HostError, LLBError
from llb_core.forks import keep_from_children

_PR_SET_PDEATHSIG = 1
_MOST_FDS = 32
_helper: socket.socket | None = None
_asking = threading.Lock()


def compile_programs(name: str, max_connections: int, family: int) -> dict[str, int]:
    """Return the file descriptors of a family's programs, by name; HostError as `load_programs`.

    By the helper, where this process has one.
    """
    if _helper is None:
        return load_programs(pins.pin_folder(name, family), compile_flags(max_connections, family))
    with _asking:
        try:
            _helper.send(json.dumps([family]).encode())
            message, fds, _, _ = socket.recv_fds(_helper, 65_536, _MOST_FDS)
        except OSError:
            message, fds = b"", []
    if not message:
        raise HostError("the helper that compiles has ended: restart the daemon")
    answer = json.loads(message)
    if answer["failed"]:
        raise HostError(answer["failed"])
    return dict(zip(answer["names"], fds, strict=True))


@contextlib.contextmanager
def helped(name: str, max_connections: int) -> Iterator[None]:
    """Have a helper compile for the balancer of that name. To be called while this process has one
    thread, and before it holds what a child must not inherit."""
    global _helper
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        with contextlib.suppress(Exception):
            _serve(theirs, name, max_connections)
        os._exit(0)
    theirs.close()
    keep_from_children(ours)
    _helper = ours
    try:
        yield
    finally:
        _helper = None
        ours.close()  # Which ends it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _serve(requests: socket.socket, name: str, max_connections: int) -> None:
    """Answer until the daemon has gone, however it went."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    capabilities.keep_only(capabilities.TO_COMPILE)
    while message := requests.recv(100):
        (family,) = json.loads(message)
        fds: dict[str, int] = {}
        failed = ""
        try:
            flags = compile_flags(max_connections, family)
            fds = load_programs(pins.pin_folder(name, family), flags)
        except LLBError as error:
            failed = str(error)
        answer = {"failed": failed, "names": list(fds)}
        socket.send_fds(requests, [json.dumps(answer).encode()], list(fds.values()))
        for fd in fds.values():
            os.close(fd)
