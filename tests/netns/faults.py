"""Wires that lose, repeat and overtake frames, put into a lab that stands.

A wire goes between the load balancer and one of the lab's two switches, so everything that one side
sends and hears goes over it.
"""

from __future__ import annotations

import array
import fcntl
import json
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from llb_core.demo.network import Namespace, Network, Process

_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


@dataclass(frozen=True, slots=True)
class Faults:
    """In 10,000 frames each way, but for the rate: frames a second each way, at most."""

    lost: int = 100
    repeated: int = 100
    overtaken: int = 200
    rate: int = 40_000


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire that carries frames until it is taken away."""

    program: Process

    def end(self) -> dict[str, int]:
        """Carry no more; give how many frames were carried, lost, repeated, overtaken, late."""
        said, _ = self.program.communicate(timeout=30)
        assert self.program.returncode == 0, "the wire broke: its last words are on standard error"
        counts: dict[str, int] = json.loads(said)
        return counts


def put_in(network: Network, switch: str, program: Path, seed: int, faults: Faults) -> Wire:
    """Take the load balancer's cable out of a switch, `public` or `private`, and put a wire in."""
    inside = network.get(switch)
    inside.ip(
        "link add wire type veth peer name outlet",
        "link set wire up",
        "link set outlet master bridge up",
        "link set port0 nomaster",
    )
    parts = (faults.lost, faults.repeated, faults.overtaken, faults.rate)
    process = inside.start(
        *(program, "port0", "wire", str(seed), *map(str, parts)),
        stdin=subprocess.PIPE,
        stderr=None,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return Wire(process)


def send_whole_frames(host: Namespace, interface: str) -> None:
    """Have an interface get no merged segments, and no checksum that is left to it to fill in."""
    with host.socket(socket.SOCK_DGRAM) as any_socket:
        value = array.array("B", struct.pack("II", _ETHTOOL_STXCSUM, 0))
        request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
