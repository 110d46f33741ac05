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

from tests.bpf.harness import family, world

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
"""
_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


def _addresses(number: int) -> str:
    """Return what is to be done for one address family."""
    with family.using(number):
        public, gateway = world.address(world.PUBLIC_ADDRESS), world.address(world.GATEWAY)
        private, vip = world.address(world.PRIVATE_ADDRESS), world.address(world.VIP)
        lost = world.address(world.UNROUTABLE)
        backends = [world.address(each) for each in (world.BACKEND, world.SECOND)]
    link, whole = (24, 32) if number == 4 else (56, 128)
    at_once = "" if number == 4 else "nodad"
    lines = [
        f"address add {public}/{link} dev {world.PUBLIC.name} {at_once}",
        f"address add {private}/{link} dev {world.PRIVATE.name} {at_once}",
        f"address add {vip}/{whole} dev lo",
        f"route add default via {gateway}",
        f"route add blackhole {lost}/{whole}",
        f"neighbour add {gateway} lladdr 02:00:00:00:00:fe dev {world.PUBLIC.name}",
    ]
    lines += [
        f"neighbour add {each} lladdr 02:00:00:00:01:{2 + place:02x} dev {world.PRIVATE.name}"
        for place, each in enumerate(backends)
    ]
    return "\n".join(lines)


class Namespace:
    """The namespace; enter it to work in it."""

    def __init__(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            self._fd = pool.submit(_make).result()
        with self.entered():
            _ip(_LINKS, 4)
            for number in family.FAMILIES:
                Path("/proc/sys/net", _FORWARDING[number]).write_text("1")
                _ip(_addresses(number), number)

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


def _ip(batch: str, number: int) -> None:
    command = ["ip", f"-{number}", "-batch", "-"]
    subprocess.run(command, input=batch, text=True, check=True, capture_output=True)


def _make() -> int:
    """Leave the thread's namespace for a new one, and return a descriptor of that."""
    if _libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare of the network namespace")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _set_namespace(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
