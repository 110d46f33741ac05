"""Whether the host knows the way to every backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llb_core.config import LoadBalancerConfig
from llb_core.datapath import attach, inspect, routes
from llb_core.doctor.finding import Finding, judge, some
from llb_core.errors import HostError
from llb_core.model import Endpoint


def look_at_backends(
    settings: LoadBalancerConfig, backends: Mapping[Endpoint, str]
) -> Iterator[Finding]:
    """Look at the way to each backend; `backends` are the names of their services."""
    count = len(backends)
    with attach.netlink() as ip:
        ways = routes.find_routes(ip, {each.address for each in backends})
        known = {each: ways[each.address] for each in backends if each.address in ways}
        without = [f"{each} ({name})" for each, name in backends.items() if each not in known]
        yield judge(
            "routes to backends",
            not without,
            f"none to {some(without)}" if without else f"to all {count}",
            "ip route add, and look at the addresses that the providers name",
        )
        try:
            private = attach.interface_index(ip, settings.private_interface)
        except HostError:
            return  # Told already.
        astray = [
            f"{each} ({backends[each]})" for each, way in known.items() if way.interface != private
        ]
        yield judge(
            "interface towards backends",
            not astray,
            f"another than {settings.private_interface} leads to {some(astray)}"
            if astray
            else settings.private_interface,
            "mend the route, or loadbalancer.private_interface: answers are looked for there",
        )
        hops = {each: way.next_hop or each.address for each, way in known.items()}
        silent = inspect.silent_neighbours(ip, set(hops.values()))
        lost = [
            f"{each} ({backends[each]}), by {hop}" for each, hop in hops.items() if hop in silent
        ]
        yield judge(
            "neighbours towards backends",
            not lost,
            f"no answer to ARP or NDP for {some(lost)}" if lost else "none that is silent",
            "is the host up, on this network, and its address right? arping, ndisc6",
        )
