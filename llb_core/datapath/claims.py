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
import struct
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from llb_core import durable
from llb_core.config import LoadBalancerConfig
from llb_core.datapath import attach, pins
from llb_core.datapath.host import RUN
from llb_core.errors import HostError
from llb_core.model import Address

log = logging.getLogger(__name__)

WAIT = 0.2
"""Seconds for an answer; on one link it takes a thousandth."""
_PROBES = 2
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_REQUEST, _REPLY = 1, 2
_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136


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
    own = _own_address(interface)
    if own is None or not addresses:
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
                    link.send(_question(own, address))
                until = time.monotonic() + wait / _PROBES
                while (left := until - time.monotonic()) > 0:
                    if not answers.poll(left * 1000):
                        break
                    answer = _answer(link.recv(2048))
                    if answer is not None and answer[0] in addresses and answer[1] not in ours:
                        found[answer[0]] = answer[1]
    except OSError:
        return found  # It is down, or we may not: what can't be seen is not refused.
    return found


def _own_address(interface: str) -> bytes | None:
    """Return the interface's link-layer address, from the kernel: /sys may be another network's."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind((interface, 0))
            own: bytes = link.getsockname()[4]
    except OSError:
        return None
    return own if len(own) == 6 and any(own) else None


def _question(own: bytes, address: Address) -> bytes:
    if isinstance(address, ipaddress.IPv4Address):
        head = b"\xff" * 6 + own + struct.pack("!H", _ARP)
        fixed = struct.pack("!HHBBH", 1, _IPV4, 6, 4, _REQUEST)
        return head + fixed + own + bytes(4) + bytes(6) + address.packed
    target = address.packed
    group = bytes.fromhex("ff0200000000000000000001ff") + target[-3:]
    head = b"\x33\x33" + group[-4:] + own + struct.pack("!H", _IPV6)
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + target
    pseudo = bytes(16) + group + struct.pack("!II", len(body), _ICMPV6)
    sum_ = _checksum(pseudo + body)
    body = body[:2] + struct.pack("!H", sum_) + body[4:]
    ip = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + bytes(16) + group
    return head + ip + body


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _answer(frame: bytes) -> tuple[Address, str] | None:
    """Return for which address a frame answers, and who sent it."""
    if len(frame) < 42:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == _ARP and struct.unpack_from("!H", frame, 20)[0] == _REPLY:
        return ipaddress.IPv4Address(frame[28:32]), frame[22:28].hex(":")
    if kind == _IPV6 and len(frame) >= 78 and frame[20] == _ICMPV6 and frame[54] == _ADVERTISEMENT:
        return ipaddress.IPv6Address(frame[62:78]), frame[6:12].hex(":")
    return None
