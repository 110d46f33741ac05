"""Keep the daemon's own probes clear of the SNAT ports.

A probe and a balanced connection go to the same backend, perhaps from the same address: if they
met on one port, the classifier would take the backend's answer to the probe for the client's. The
kernel chooses a probe's port by itself where it can be told the range (IP_LOCAL_PORT_RANGE, Linux
6.3; it cannot leave net.ipv4.ip_local_port_range); elsewhere each probe is bound to a port here.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from llb_core.errors import ConfigurationError

PortRange = tuple[int, int]
"""The lowest and the highest port, both included."""

_LOCAL_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IP_LOCAL_PORT_RANGE = 51  # include/uapi/linux/in.h
_LOWEST, _HIGHEST = 1024, 65535
_ENOUGH = 512
"""Ports that serve for probes: below this the whole range above 1024 is looked at instead."""
_TRIES = 16


class SourcePorts:
    """The ports that probes may leave from."""

    def __init__(self, ports: PortRange, *, chosen_by_kernel: bool) -> None:
        self.ports = ports
        self.chosen_by_kernel = chosen_by_kernel
        low, high = ports
        self._option = _range_option(ports)
        self._next: Iterator[int] = itertools.cycle(range(low, high + 1))

    def bind(self, probe: socket.SocketType) -> None:
        """Give an unconnected socket its port, or the range that its port will come from."""
        if self.chosen_by_kernel:
            probe.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, self._option)
            return
        # Sockets to other backends may be on the port already; only a listener is in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(_TRIES):
            try:
                probe.bind(("", next(self._next)))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        raise OSError(errno.EADDRINUSE, "no free port for a health check")


def source_ports(snat_ports: PortRange) -> SourcePorts:
    """Choose the ports for the probes of this host, outside `snat_ports`.

    Raises ConfigurationError where the SNAT ports leave no room.
    """
    ephemeral = _ephemeral_ports()
    if (ports := largest_gap(ephemeral, snat_ports)) is not None:
        return SourcePorts(ports, chosen_by_kernel=_kernel_can_choose(ports))
    if (ports := largest_gap((_LOWEST, _HIGHEST), snat_ports)) is not None:
        return SourcePorts(ports, chosen_by_kernel=False)
    low, high = snat_ports
    raise ConfigurationError(
        f"loadbalancer.snat_ports: {low}-{high} leaves no {_ENOUGH} ports to health checks: "
        f"take a smaller range, such as 1024-32767"
    )


def largest_gap(within: PortRange, without: PortRange) -> PortRange | None:
    """Return the larger part of `within` that lies clear of `without`, or None if it is small."""
    low, high = within
    below = (low, min(high, without[0] - 1))
    above = (max(low, without[1] + 1), high)
    best = max(above, below, key=_size)
    return best if _size(best) >= _ENOUGH else None


def _size(ports: PortRange) -> int:
    return ports[1] - ports[0] + 1


def _ephemeral_ports() -> PortRange:
    low, high = _LOCAL_PORT_RANGE.read_text().split()
    return int(low), int(high)


def _kernel_can_choose(ports: PortRange) -> bool:
    with socket.socket() as trial:
        try:
            trial.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, _range_option(ports))
        except OSError:
            return False
    return True


def _range_option(ports: PortRange) -> bytes:
    return struct.pack("=I", ports[1] << 16 | ports[0])
