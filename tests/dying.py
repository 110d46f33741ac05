"""A process that kills itself (SIGKILL) before its n-th step: each write that the kernel is asked
for by bpf(2), rtnetlink or a file system, which is where something may be left half done.

As a program: `python -m tests.dying N llb-arguments…` is `llb` that dies so, counting from its
start; with `N@` for N it counts from a SIGUSR1 on.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from llb_core import cli
from llb_core.datapath import attach, bpf_syscall

_BPF_STEPS = {
    bpf_syscall.MAP_CREATE,
    bpf_syscall.MAP_UPDATE,
    bpf_syscall.MAP_DELETE,
    bpf_syscall.PROG_LOAD,
    bpf_syscall.OBJ_PIN,
    bpf_syscall.LINK_CREATE,
    bpf_syscall.LINK_UPDATE,
    bpf_syscall.LINK_DETACH,
    bpf_syscall.PROG_TEST_RUN,
    bpf_syscall.MAP_UPDATE_BATCH,
    bpf_syscall.MAP_DELETE_BATCH,
    bpf_syscall.LINK_CREATE,
    bpf_syscall.LINK_UPDATE,
    bpf_syscall.LINK_DETACH,
}
_FILE_STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def die_before(step: int, *, from_signal: bool = False) -> None:
    """Have this process die before that step, counted from 1, with from_signal from a SIGUSR1 on;
    for good."""
    process, steps = os.getpid(), itertools.count(1)
    begun = threading.Event()
    if from_signal:
        signal.signal(signal.SIGUSR1, lambda *_: begun.set())
    else:
        begun.set()

    def count() -> None:
        if os.getpid() == process and begun.is_set() and next(steps) == step:
            os.kill(process, signal.SIGKILL)

    def before(function: Callable[..., Any], is_step: Callable[..., bool]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            if is_step(*args):
                count()
            return function(*args, **more)

        return counted

    def is_bpf_step(command: int, _: bytes | ctypes.Array[ctypes.c_char]) -> bool:
        return command in _BPF_STEPS

    bpf_syscall.bpf = before(bpf_syscall.bpf, is_bpf_step)
    bpf_syscall._call_in_place = before(bpf_syscall._call_in_place, is_bpf_step)
    netlink = attach.netlink

    @contextmanager
    def counted_netlink() -> Iterator[Any]:
        with netlink() as ip:
            yield _Netlink(ip, count)

    attach.netlink = counted_netlink

    def hear(event: str, args: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(args[2], int) and args[2] & os.O_ACCMODE
        if event in _FILE_STEPS or is_write:
            count()

    sys.addaudithook(hear)


class _Netlink:
    """A netlink socket whose writes count."""

    def __init__(self, ip: IPRoute, count: Callable[[], None]) -> None:
        self._ip, self._count = ip, count

    def __getattr__(self, name: str) -> Any:
        if name in ("tc", "addr"):
            self._count()
        return getattr(self._ip, name)


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Do something in a child that dies before that step; False where it was through before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_before(step)
            action()
            code = 0
        except BaseException as error:  # noqa: BLE001 - a child must not go on as the test
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, os.WTERMSIG(status)
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "it failed by itself"
    return False


def killed_at_each(action: Callable[[], object]) -> Iterator[int]:
    """Do something in children that die before its first step, its second, …, until one is through;
    yield after each death."""
    for step in itertools.count(1):
        if not killed_at(step, action):
            assert step > 1, "it has no step"
            return
        yield step


def main() -> None:
    """Run `llb`, and die."""
    step = sys.argv[1]
    die_before(int(step.removesuffix("@")), from_signal=step.endswith("@"))
    sys.argv[:] = ["llb", *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
