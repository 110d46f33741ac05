"""A network namespace for one process, which the kernel removes when the process ends, however.

It has no name: a thread makes it, and a file descriptor keeps it. Inside are the interfaces of a
balancer with two sides. Nothing is sent through them: programs are run on packets, and need
interfaces that exist, routes and neighbours.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.bpf.harness import world

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

_LINKS = f"""
link set lo up
link add {world.PUBLIC.name} address {world.PUBLIC.mac} type veth peer name {world.PUBLIC_PEER}
link add {world.PRIVATE.name} address {world.PRIVATE.mac} type veth peer name {world.PRIVATE_PEER}
link set {world.PUBLIC.name} up
link set {world.PUBLIC_PEER} up
link set {world.PRIVATE.name} up
link set {world.PRIVATE_PEER} up
address add {world.PUBLIC_ADDRESS}/24 dev {world.PUBLIC.name}
address add {world.PRIVATE_ADDRESS}/24 dev {world.PRIVATE.name}
address add {world.VIP}/32 dev lo
route add default via {world.GATEWAY}
route add blackhole {world.UNROUTABLE}/32
neighbour add {world.GATEWAY} lladdr 02:00:00:00:00:fe dev {world.PUBLIC.name}
neighbour add {world.BACKEND} lladdr 02:00:00:00:01:02 dev {world.PRIVATE.name}
neighbour add {world.SECOND} lladdr 02:00:00:00:01:03 dev {world.PRIVATE.name}
"""


class Namespace:
    """The namespace; enter it to work in it."""

    def __init__(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            self._fd = pool.submit(_make).result()
        with self.entered():
            subprocess.run(
                ["ip", "-batch", "-"], input=_LINKS, text=True, check=True, capture_output=True
            )
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Take the calling thread, and what it starts, into the namespace and out again."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _set_namespace(self._fd)
            yield
        finally:
            _set_namespace(outside)
            os.close(outside)

    def close(self) -> None:
        """Let the kernel remove it."""
        os.close(self._fd)


def _make() -> int:
    """Leave the thread's namespace for a new one, and return a descriptor of that."""
    if _libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare of the network namespace")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _set_namespace(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
