"""A lab with a router on each side of the load balancer, so that links beyond it can be narrow.

    client ── r1 ── [ lb ] ── r2 ── b1

Every link takes 1500 bytes until a test says otherwise. The balancer knows two more services than
every lab's: `sink`, TCP, and `closed`, UDP, for which nobody listens.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from llb_core.demo import lab
from llb_core.demo.network import Namespace, Network, wait_until

MTU = 1500
SINK_PORT, CLOSED_PORT = 5001, 9999
_TRANSFER = {4: ("192.0.2.", "10.0.1.", 24), 6: ("2001:db8:1::", "fd00:1::", 64)}
_SERVICE = """
[services.{name}]
address = {vips}
port = {port}
protocol = "{protocol}"
provider = {{ name = "static", path = "{name}.toml" }}
health = {{ type = "none" }}
"""


@dataclass(frozen=True)
class Routed:
    """The hosts; `lab` speaks of them as others do."""

    lab: lab.Lab
    r1: Namespace
    r2: Namespace

    @property
    def backend(self) -> Namespace:
        """The only backend's host."""
        return self.lab.backends[0].host

    def widen(self) -> None:
        """Give every link its full width, and forget what anybody knows of a narrower one."""
        for host, interfaces in self._ends():
            host.ip(*(f"link set {each} mtu {MTU}" for each in interfaces))
        # The balancer hears of its links from time to time only, and tells of them until then.
        for family in lab.ADDRESSES:
            wait_until(
                lambda family=family: self.is_wide(family), lab.LIMIT, "the way is wide both ways"
            )
        for host, _ in self._ends():
            for family in lab.ADDRESSES:
                host.run("ip", f"-{family}", "route", "flush", "cache")
            host.run("ip", "tcp_metrics", "flush")

    def is_wide(self, family: int) -> bool:
        """Whether the largest packet that a link takes goes to the backend and comes back."""
        headers, discover = (28, (0, 10)) if family == 4 else (48, (41, 23))
        payload = bytes(MTU - headers - len(b"b1 "))
        with self.lab.client.socket(socket.SOCK_DGRAM, family) as client:
            client.setsockopt(*discover, 3)  # IP_PMTUDISC_PROBE: whatever is known of the path
            client.settimeout(0.2)
            client.connect((lab.ADDRESSES[family].vip, lab.UDP_PORT))
            try:
                client.send(payload)
                return client.recv(MTU) == b"b1 " + payload
            except OSError:
                return False

    def _ends(self) -> list[tuple[Namespace, tuple[str, ...]]]:
        both = ("eth0", "eth1")
        return [
            (self.lab.client, ("eth0",)),
            (self.r1, both),
            (self.lab.lb, both),
            (self.r2, both),
            (self.backend, ("eth0",)),
        ]


def build(network: Network) -> Routed:
    """Make the hosts, their links, addresses and routes of both families; start nothing."""
    client, r1, lb, r2, b1 = (network.add(each) for each in ("client", "r1", "lb", "r2", "b1"))
    network.link((client, "eth0"), (r1, "eth0"))
    network.link((r1, "eth1"), (lb, "eth0"))
    network.link((lb, "eth1"), (r2, "eth0"))
    network.link((r2, "eth1"), (b1, "eth0"))
    for router in (r1, r2):
        router.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for family, own in lab.ADDRESSES.items():
        public, private, length = _TRANSFER[family]
        everywhere = "0.0.0.0/0" if family == 4 else "::/0"
        client.ip(f"addr add {own.client(11)}/{own.length} dev eth0",
                  f"route add {everywhere} via {own.client(254)}")  # fmt: skip
        r1.ip(f"addr add {own.client(254)}/{own.length} dev eth0",
              f"addr add {public}254/{length} dev eth1",
              f"route add {everywhere} via {public}1")  # fmt: skip
        lb.ip(f"addr add {public}1/{length} dev eth0",
              f"addr add {private}1/{length} dev eth1",
              f"route add {everywhere} via {public}254",
              f"route add {own.backend_network} via {private}254")  # fmt: skip
        r2.ip(f"addr add {private}254/{length} dev eth0",
              f"addr add {own.backend(254)}/{own.length} dev eth1")  # fmt: skip
        b1.ip(f"addr add {own.backend(11)}/{own.length} dev eth0",
              f"route add {everywhere} via {own.backend(254)}")  # fmt: skip
    backend = lab.BackendHost("b1", lab.ADDRESSES[4].backend(11), b1)
    return Routed(lab.Lab([client], lb, [backend]), r1, r2)


def configure(balancer: lab.Balancer) -> None:
    """Write llb.toml and the backends' files."""
    vips = json.dumps([each.vip for each in lab.ADDRESSES.values()])
    extra = ""
    for name, protocol, port in (("sink", "tcp", SINK_PORT), ("closed", "udp", CLOSED_PORT)):
        extra += _SERVICE.format(name=name, protocol=protocol, port=port, vips=vips)
        lines = [
            f'[[backends]]\naddress = "{each.backend(11)}"\nport = {port}\n'
            for each in lab.ADDRESSES.values()
        ]
        lab.replace(balancer.folder / f"{name}.toml", "\n".join(lines))
    snat = json.dumps([f"{private}1" for _, private, _ in _TRANSFER.values()])
    balancer.write_config(families=(4, 6), snat_addresses=snat, extra=extra)
    balancer.write_backends(balancer.lab.backends, (4, 6))


def mtu_of(sock: socket.socket) -> int:
    """Return what a connected socket takes for the path's MTU."""
    if sock.family == socket.AF_INET6:
        return sock.getsockopt(socket.IPPROTO_IPV6, 24)  # IPV6_MTU
    return sock.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU
