"""Refuse SNAT addresses that somebody else has, as far as that can be seen.

Backends' answers to a shared address go to either of its owners. Another balancer on this host has
written down what is its own; another host on the same link answers when it is asked: by ARP (a
probe as of RFC 5227, which tells nobody that the address is ours) or by neighbour discovery
(RFC 4861).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import select
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from llb_core import durable
from llb_core.config import LoadBalancerConfig
from llb_core.datapath import attach, links, neighbour_frames, pins
from llb_core.datapath.host import RUN
from llb_core.errors import HostError
from llb_core.model import Address

log = logging.getLogger(__name__)

WAIT = 0.2
"""Seconds for an answer; on one link it takes a thousandth."""
_PROBES = 2


def refuse_what_others_have(settings: LoadBalancerConfig, ours: Collection[Address] = ()) -> None:
    """Raise HostError where another balancer, or another host on the private link, has one of the
    SNAT addresses; `ours` are those that are known to be our own."""
    for name, addresses, (low, high) in _claims_of_others(settings.name):
        first, last = settings.snat_ports
        shared = addresses & set(settings.snat_addresses)
        if shared and low <= last and first <= high:
            raise HostError(
                f"loadbalancer.snat_addresses: {min(shared, key=str)} is that of the balancer "
                f'"{name}" on this host too, with ports {low}-{high}: give each its own addresses, '
                "or ports that are clear of each other"
            )
    asked = [each for each in settings.snat_addresses if each not in ours]
    for address, owner in find_owners(settings.private_interface, asked).items():
        raise HostError(
            f"loadbalancer.snat_addresses: {address} is that of another host on "
            f"{settings.private_interface} too ({owner} answers for it): give each load balancer "
            "SNAT addresses of its own"
        )


def claim(settings: LoadBalancerConfig) -> None:
    """Write down what is ours, for other balancers on this host to see.

    Where that can't be done (a disk that is full), it is told: no reason to serve nobody.
    """
    record = {
        "netns": _network(),
        "addresses": [str(each) for each in settings.snat_addresses],
        "ports": list(settings.snat_ports),
    }
    try:
        RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
        durable.write(_path(settings.name), json.dumps(record))
    except OSError as error:
        log.warning(
            "%s: can't be written (%s): another balancer on this host won't see that our SNAT "
            "addresses are taken",
            _path(settings.name),
            error.strerror,
        )


def forget(name: str) -> None:
    """Take back what was written down."""
    _path(name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    return RUN / f"{name}.snat.json"


def _network() -> int:
    """Return a number for this network namespace: others have addresses of their own."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def _claims_of_others(name: str) -> Iterator[tuple[str, set[Address], tuple[int, int]]]:
    """Yield what other balancers in this network claim, of which something is installed."""
    if not RUN.is_dir():
        return
    for path in sorted(RUN.glob("*.snat.json")):
        other = path.name.removesuffix(".snat.json")
        if other == name or not pins.is_pinned(other):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text())
            if record["netns"] == _network():
                low, high = (int(each) for each in record["ports"])
                yield (
                    other,
                    {ipaddress.ip_address(each) for each in record["addresses"]},
                    (low, high),
                )


def find_owners(
    interface: str, addresses: Collection[Address], wait: float = WAIT
) -> dict[Address, str]:
    """Ask the link who has these; return the link-layer address of whoever answers for one.

    Nothing where the interface has no link-layer addresses, or this process may not ask.
    """
    card = links.find_card(interface)
    if card is None or not addresses:
        return {}
    with attach.netlink() as ip:  # Linux answers on every interface for the addresses of all.
        ours = {link.get_attr("IFLA_ADDRESS") for link in ip.get_links()}
    found: dict[Address, str] = {}
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as link:
            link.bind((interface, 3))
            link.setblocking(False)
            answers = select.poll()  # select() refuses files whose number is above 1,023
            answers.register(link, select.POLLIN)
            for _ in range(_PROBES):
                for address in addresses:
                    link.send(neighbour_frames.question(card.mac, address))
                until = time.monotonic() + wait / _PROBES
                while (left := until - time.monotonic()) > 0:
                    if not answers.poll(left * 1000):
                        break
                    answer = neighbour_frames.answer(link.recv(2048))
                    if answer is not None and answer[0] in addresses and answer[1] not in ours:
                        found[answer[0]] = answer[1]
    except OSError:
        return found  # It is down, or we may not: what can't be seen is not refused.
    return found
