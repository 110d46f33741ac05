"""Say in steps where a packet would go, and why: the classifier's verdict, put into words."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from llb_core.config import Config, LoadBalancerConfig
from llb_core.datapath import Datapath, attach, links
from llb_core.datapath.connections import Connection
from llb_core.datapath.dry_run import FLAGS, Outcome, Packet, dry_run
from llb_core.datapath.layout import Verdict
from llb_core.datapath.links import Neighbour
from llb_core.errors import ConfigurationError, HostError
from llb_core.model import (
    BackendMode,
    Installed,
    InstalledBackend,
    InstalledService,
    Scheduler,
    Transport,
)
from llb_core.orders import parse_endpoint
from llb_core.verdict_words import meaning, remedy

View = dict[str, Any]

_HOW = {
    Scheduler.MAGLEV: "by the hash of its addresses and ports",
    Scheduler.SOURCE: "by the hash of its source address",
    Scheduler.ROUND_ROBIN: "since it is its turn",
    Scheduler.LEAST_CONNECTIONS: "since of two drawn it has fewer connections for its weight",
}


@dataclass(frozen=True, slots=True)
class _Host:
    """Where the packet arrives, and what the kernel knows of the way on."""

    interface: str
    names: dict[int, str]
    neighbours: dict[tuple[int, str], Neighbour]


def trace(config: Config, packet: Packet, interface: str | None = None) -> View:
    """Return the verdict on a packet and the steps that led to it. By default a backend's packet
    arrives by the private interface, any other by the first public one.

    Raises ConfigurationError where the packet can't be meant, HostError where nothing is installed
    or this process may not look (it takes root).
    """
    if packet.source.address.version != packet.destination.address.version:
        raise ConfigurationError(
            f"{packet.source} and {packet.destination} are of two address families"
        )
    if packet.flag not in FLAGS:
        raise ConfigurationError(f'flag: "{packet.flag}": one of {", ".join(FLAGS)}')
    settings = config.loadbalancer
    number = packet.source.address.version
    name = _interface(settings, packet, interface)
    with closing(Datapath.open_reading(settings)) as datapath:
        family = datapath.families.get(number)
        if family is None:
            raise HostError(
                f"no service has an address of IPv{number}: LLB leaves such packets alone"
            )
        with attach.netlink() as ip:
            index = attach.interface_index(ip, name)
            mac = links.interface_mac(ip, index)
            outcome = dry_run(family, packet, index, mac)
            host = _Host(name, links.interface_names(ip), links.neighbours(ip, number))
        installed = family.installed(with_tables=False)
    return _view(packet, outcome, installed, host)


def _interface(settings: LoadBalancerConfig, packet: Packet, wanted: str | None) -> str:
    """Return by which interface a packet arrives, the one that is wanted or else the likely one."""
    if wanted is not None:
        if wanted not in settings.interfaces:
            ours = ", ".join(settings.interfaces)
            raise ConfigurationError(f'interface: "{wanted}": one of {ours}')
        return wanted
    cidrs = settings.cidrs_of(packet.source.address.version)
    is_from_backend = any(packet.source.address in cidr for cidr in cidrs)
    return settings.private_interface if is_from_backend else settings.public_interfaces[0]


def _view(packet: Packet, outcome: Outcome, installed: Installed, host: _Host) -> View:
    verdict, connection = outcome.verdict, outcome.after or outcome.before
    service = installed.services.get(
        connection.service_slot if connection else outcome.service_slot
    )
    steps, lost = [("arrives", f"by {host.interface}")], ""
    if service is not None:
        steps.append(("service", f"{service.key} is the service {service.name}"))
    else:
        steps.append(("service", f"{packet.destination} is no service's"))
    if outcome.before is not None:
        steps.append(("connection", _known(outcome.before)))
    if connection is not None and service is not None:
        steps += _way_on(packet, outcome, connection, installed, service)
        hop, lost = _hop(packet, outcome, connection, host)
        steps += hop
    steps.append(("verdict", meaning(verdict)))
    return {
        "verdict": verdict.name.lower(),
        "meaning": meaning(verdict),
        "remedy": remedy(verdict) or lost,
        "service": service.name if service else None,
        "backend": str(connection.backend) if connection else None,
        "snat": str(connection.snat) if connection else None,
        "client": str(connection.client) if connection else None,
        "steps": [{"step": step, "text": text} for step, text in steps],
    }


def _known(before: Connection) -> str:
    return (
        f"belongs to one that is {before.state.name.lower()}: {before.packets_in} packets in, "
        f"{before.packets_out} out so far"
    )


def _way_on(
    packet: Packet,
    outcome: Outcome,
    connection: Connection,
    installed: Installed,
    service: InstalledService,
) -> list[tuple[str, str]]:
    backend = installed.backends.get(connection.backend_slot)
    steps = []
    if outcome.verdict is Verdict.FORWARD_NEW:
        steps.append(("backend", f"{connection.backend}, {_chosen(installed, service, backend)}"))
        kept = connection.snat.port == packet.source.port
        how = "with the client's own port" if kept else "with a port that is free there"
        steps.append(("snat", f"the backend sees {connection.snat}, {how}"))
    elif packet.source == connection.backend:
        steps.append(("client", f"{connection.client}, to whom it comes from {connection.vip}"))
    else:
        steps.append(("backend", f"{connection.backend}, which sees {connection.snat}"))
    return steps


def _chosen(
    installed: Installed, service: InstalledService, backend: InstalledBackend | None
) -> str:
    own = [each for each in installed.backends.values() if each.service_slot == service.slot]
    active = [each for each in own if each.mode is BackendMode.ACTIVE]
    total = sum(each.weight for each in active)
    share = f", with {backend.weight / total:.0%} of the weight" if backend and total else ""
    return f"{_HOW[service.policy.scheduler]}; one of {len(active)} active{share}"


def _hop(
    packet: Packet, outcome: Outcome, connection: Connection, host: _Host
) -> tuple[list[tuple[str, str]], str]:
    """Return the steps of the way on, and what to do where the packet is lost at its next hop."""
    if outcome.way is None:
        return [("route", "there is none")], ""
    index, next_hop, mtu = outcome.way
    interface = host.names.get(index, str(index))
    end = connection.client if packet.source == connection.backend else connection.backend
    target = next_hop or str(end.address)
    text = f"by {interface}"
    if target != str(end.address):
        text += f", over {target}"
    if mtu:
        text += f", packets of up to {mtu} bytes"
    known, lost = _neighbour(target, interface, host.neighbours.get((index, target)))
    return [("route", text), ("neighbour", known)], lost


def _neighbour(target: str, interface: str, found: Neighbour | None) -> tuple[str, str]:
    """Return what is known of the next hop, and what to do where it does not answer."""
    look = (
        f"see whether {target} is up and has that address: ip neigh show {target} dev {interface}"
    )
    if found is None:
        return f"{target} is not known yet: it is asked", ""
    if found.state == "failed":
        return f"{target} did not answer by {interface} when it was asked for its MAC address", look
    if found.state == "incomplete":
        return f"{target} is being asked by {interface}, and has not answered yet", look
    return f"{target} is {found.mac} ({found.state})", ""


def packet_of(source: str, destination: str, protocol: str, flag: str, length: int) -> Packet:
    """Return the packet that somebody asks about; ConfigurationError where it can't be meant."""
    try:
        transport = Transport(protocol)
    except ValueError:
        raise ConfigurationError(f'protocol: "{protocol}": tcp or udp') from None
    return Packet(
        transport,
        parse_endpoint(source, "source"),
        parse_endpoint(destination, "destination"),
        flag,
        length,
    )
