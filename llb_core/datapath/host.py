"""What LLB changes on the host besides maps and filters, and how it is put back.

VIPs, SNAT addresses, sysctls and clsact qdiscs: each is written down under /run/llb before it is
changed, with what was there, so that `llb detach` leaves the host as it was.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from llb_core import durable
from llb_core.datapath import attach, rtnetlink
from llb_core.errors import HostError
from llb_core.model import Address

RUN = Path("/run/llb")
SYSCTLS = Path("/proc/sys")
EPHEMERAL_PORTS = "net/ipv4/ip_local_port_range"
_EEXIST = 17
_NODAD = 0x02
"""IFA_F_NODAD: no duplicate address detection (RFC 4862, 5.4), which takes a second or two."""
_IN_DETECTION = 0x04 | 0x08 | 0x40
"""IFA_F_OPTIMISTIC, IFA_F_DADFAILED, IFA_F_TENTATIVE: nobody may be told yet that it is ours."""
_FOR_EVER = 0xFFFFFFFF
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_RTM_GETADDR, _IFA_ADDRESS, _IFA_LOCAL = 22, 1, 2


class Held(NamedTuple):
    """An address of this host."""

    address: Address
    length: int
    """Of its network's prefix."""
    interface: int
    """By its index."""
    is_sure: bool
    """No duplicate address detection is under way, or has failed."""


@dataclass(slots=True)
class Changes:
    """What was changed: enough to undo it. Saved in /run/llb/NAME.host.json."""

    name: str
    addresses: list[tuple[str, str]] = field(default_factory=list)
    """Interface and address with prefix length."""
    sysctls: dict[str, str] = field(default_factory=dict)
    """Path below /proc/sys, and the value that was there."""
    clsact: list[str] = field(default_factory=list)
    """Interfaces whose qdisc is ours."""

    @property
    def path(self) -> Path:
        """Where it is saved."""
        return RUN / f"{self.name}.host.json"

    @classmethod
    def load(cls, name: str) -> Changes:
        """Read what an earlier process changed; nothing where there is no record."""
        changes = cls(name)
        try:
            saved = json.loads(changes.path.read_text())
            changes.addresses = [(str(i), str(a)) for i, a in saved["addresses"]]
            changes.sysctls = {str(k): str(v) for k, v in saved["sysctls"].items()}
            changes.clsact = [str(i) for i in saved["clsact"]]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError(
                f"{changes.path}: what LLB changed on this host can't be read ({error}): put "
                "addresses and sysctls in order by hand, and remove the file"
            ) from None
        return changes

    def places_of(self, address: Address) -> set[str]:
        """Return the interfaces that LLB has added an address to."""
        added = _with_length(address)
        return {interface for interface, each in self.addresses if each == added}

    def save(self) -> None:
        """Write the record, whole or not at all; HostError where it can't be."""
        record = {key: value for key, value in asdict(self).items() if key != "name"}
        try:
            RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
            durable.write(self.path, json.dumps(record))
        except OSError as error:
            raise HostError(
                f"{self.path}: what LLB changes on this host can't be written down: "
                f"{error.strerror}: make room, or nothing is changed"
            ) from None


def read_sysctl(name: str) -> str:
    """Return a sysctl's value; HostError where the kernel has none of that name."""
    try:
        return (SYSCTLS / name).read_text().strip()
    except OSError as error:
        raise HostError(f"sysctl {name}: can't be read: {error.strerror}") from None


def is_on(name: str) -> bool:
    """Say whether a sysctl is other than 0; one that the kernel has not is off."""
    try:
        return read_sysctl(name) != "0"
    except HostError:  # Its module is not loaded, or its interface is gone.
        return False


def put_back(changes: Changes, name: str) -> None:
    """Set a sysctl to what was there, and forget it; nothing where it was not changed."""
    value = changes.sysctls.get(name)
    if value is None:
        return
    with contextlib.suppress(OSError):  # Its interface may be gone.
        (SYSCTLS / name).write_text(value)
    del changes.sysctls[name]
    changes.save()


def set_sysctl(changes: Changes, name: str, value: str) -> bool:
    """Set a sysctl, remembering what was there; False where it is set already."""
    found = read_sysctl(name)
    if found == value:
        return False
    changes.sysctls.setdefault(name, found)
    changes.save()
    try:
        (SYSCTLS / name).write_text(value)
    except OSError as error:
        raise HostError(f"sysctl {name}: can't be set to {value}: {error.strerror}") from None
    return True


def add_addresses(
    ip: IPRoute, changes: Changes, wanted: Iterable[tuple[str, Address]]
) -> list[str]:
    """Add addresses of ours that the host lacks, each to its interface; return those added. One
    that LLB added to `lo`, and that belongs to another by now, goes there."""
    added = []
    for interface, address in missing_addresses(changes, wanted):
        record = (interface, _with_length(address))
        if record not in changes.addresses:
            changes.addresses.append(record)
            changes.save()
        try:
            _add(ip, index_of(interface), address)
        except NetlinkError as error:
            if error.code != _EEXIST:
                raise HostError(f"{address} can't be added to {interface}: {error}") from None
        if interface != "lo" and "lo" in changes.places_of(address):
            _remove(ip, changes, "lo", _with_length(address))
            changes.save()
        added.append(f"{address} on {interface}")
    return added


def ensure_clsact(ip: IPRoute, changes: Changes, interface: str, index: int) -> None:
    """Add the clsact qdisc where an interface has none, remembering that it is ours."""
    if attach.has_clsact(ip, index):
        return
    if interface not in changes.clsact:
        changes.clsact.append(interface)
        changes.save()
    attach.ensure_clsact(ip, index)


def missing_addresses(
    changes: Changes, wanted: Iterable[tuple[str, Address]]
) -> list[tuple[str, Address]]:
    """Return those that the host lacks, or has where LLB added them when they belonged to `lo`,
    before their interface got its network; each once."""
    held = list(addresses_held())
    loopback = index_of("lo")
    present = {each.address for each in held}
    placed = {each.address for each in held if each.interface != loopback}
    missing: dict[Address, str] = {}
    for interface, address in wanted:
        is_missing = address not in present
        is_elsewhere = interface != "lo" and address not in placed
        if is_missing or (is_elsewhere and "lo" in changes.places_of(address)):
            missing.setdefault(address, interface)
    return [(interface, address) for address, interface in missing.items()]


def placed(interfaces: Iterable[str], vips: Iterable[Address]) -> list[tuple[str, Address]]:
    """Say which interface each VIP belongs to: `lo`, which is up whatever the links do.

    But an IPv6 address is made known to neighbours by its own interface alone, where one of IPv4
    is by all of them. So a VIP out of a network of one of our interfaces belongs to that one.
    """
    addresses = list(vips)
    if all(vip.version == 4 for vip in addresses):
        return [("lo", vip) for vip in addresses]
    names = {index_of(interface): interface for interface in interfaces}
    networks = [
        (names[each.interface], ipaddress.ip_network((each.address, each.length), strict=False))
        for each in addresses_held(socket.AF_INET6)
        if each.interface in names and each.length < 128
    ]
    return [
        (next((interface for interface, network in networks if vip in network), "lo"), vip)
        for vip in addresses
    ]


def remove_addresses(ip: IPRoute, changes: Changes, keep: Iterable[Address]) -> list[str]:
    """Take away addresses that LLB added and that are not among those to keep."""
    kept = {str(address) for address in keep}
    leaving = [each for each in changes.addresses if each[1].split("/")[0] not in kept]
    for interface, address in leaving:
        _remove(ip, changes, interface, address)
    if leaving:
        changes.save()
    return [f"{address.split('/')[0]} on {interface}" for interface, address in leaving]


def undo(ip: IPRoute, changes: Changes) -> list[str]:
    """Put everything back; return what was done, a phrase each. What is gone is not missed."""
    done = [f"removed {each}" for each in remove_addresses(ip, changes, keep=())]
    for interface in list(changes.clsact):
        with contextlib.suppress(HostError):
            index = index_of(interface)
            if not attach.has_filters(ip, index):
                attach.remove_clsact(ip, index)
                done.append(f"removed clsact from {interface}")
    for name, value in reversed(changes.sysctls.items()):
        with contextlib.suppress(OSError):
            (SYSCTLS / name).write_text(value)
            done.append(f"set {name.replace('/', '.')} back to {value}")
    changes.path.unlink(missing_ok=True)
    return done


def refuse_shared_ports(ports: tuple[int, int]) -> None:
    """Raise HostError where the SNAT ports meet the ports that the host itself connects from."""
    low, high = (int(each) for each in read_sysctl(EPHEMERAL_PORTS).split())
    if ports[0] <= high and low <= ports[1]:
        raise HostError(
            f"loadbalancer.snat_ports = {ports[0]}-{ports[1]} meets the host's own ports "
            f"(net.ipv4.ip_local_port_range = {low}-{high}): change the one or the other, so that "
            "no connection of the host is taken for a balanced one"
        )


def addresses_present() -> set[Address]:
    """Return all addresses of this host."""
    return {each.address for each in addresses_held()}


def addresses_held(family: int = socket.AF_UNSPEC) -> Iterator[Held]:
    """Yield the addresses of this host, of a family or of all."""
    question = _ADDRESS.pack(family, 0, 0, 0, 0)
    for answer in rtnetlink.dump(_RTM_GETADDR, question):
        _, length, flags, _, index = _ADDRESS.unpack_from(answer)
        found = rtnetlink.attributes(answer[_ADDRESS.size :])
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if packed is not None:
            yield Held(ipaddress.ip_address(packed), length, index, not flags & _IN_DETECTION)


def _add(ip: IPRoute, index: int, address: Address) -> None:
    """Add one address; one of IPv6 at once, and never as a source that the host chooses itself."""
    if address.version == 4:
        ip.addr("add", index=index, address=str(address), prefixlen=32)
        return
    ip.addr(
        "add",
        index=index,
        address=str(address),
        prefixlen=128,
        family=socket.AF_INET6,
        flags=_NODAD,
        preferred_lft=0,
        valid_lft=_FOR_EVER,
    )


def _remove(ip: IPRoute, changes: Changes, interface: str, address: str) -> None:
    """Take an address that LLB added away, and forget it; what is gone is not missed."""
    with contextlib.suppress(NetlinkError, HostError):
        plain, _, length = address.partition("/")
        ip.addr("del", index=index_of(interface), address=plain, prefixlen=int(length))
    changes.addresses.remove((interface, address))


def _with_length(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


def index_of(interface: str) -> int:
    """Return an interface's number; HostError where there is no such interface."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise HostError(f'interface "{interface}" does not exist on this host') from None
