"""What else there is on the host that could get in the way of packets. Read only."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pyroute2 import IPRoute

from llb_core.datapath import attach, bpf_syscall, host, links, tcx
from llb_core.model import Address

_SIOCETHTOOL = 0x8946
_ETHTOOL_GFLAGS = 0x25
_ETH_FLAG_LRO = 1 << 15
_IFF_UP = 1
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_SILENT = ("failed", "incomplete")
"""States of a neighbour whom the kernel has asked in vain."""


@dataclass(frozen=True, slots=True)
class OtherProgram:
    """A program of somebody else on a hook that packets pass: what, and whether before ours."""

    what: str
    is_before: bool


def is_up(ip: IPRoute, index: int) -> bool:
    """Say whether an interface is switched on."""
    return bool(ip.link("get", index=index)[0]["flags"] & _IFF_UP)


def other_programs(ip: IPRoute, index: int) -> list[OtherProgram]:
    """Return the XDP programs on an interface, its programs on TCX and its filters on clsact, both
    ways, that are not LLB's; HostError where one may not look."""
    found = []
    xdp = ip.link("get", index=index)[0].get_attr("IFLA_XDP")
    if xdp is not None and xdp.get_attr("IFLA_XDP_ATTACHED"):
        found.append(OtherProgram(f"an XDP program (id {xdp.get_attr('IFLA_XDP_PROG_ID')})", True))
    found += _on_tcx(index)
    arriving, is_filter = _filters(ip, index, _INGRESS)  # or else we hang on TCX, before them all
    leaving, _ = _filters(ip, index, _EGRESS)
    own = min(attach.PRIORITIES.values())
    found += [
        OtherProgram(f"{text} at the ingress", is_filter and priority < own)
        for priority, text in arriving
    ]
    return found + [OtherProgram(f"{text} at the egress", False) for _, text in leaving]


def _filters(ip: IPRoute, index: int, parent: int) -> tuple[list[tuple[int, str]], bool]:
    """Return the filters of others on one side of clsact, with their priorities, each kind once;
    and whether one of LLB's hangs there."""
    found: dict[tuple[int, str], str] = {}
    has_ours = False
    for message in ip.get_filters(index=index, parent=parent):
        priority, kind = message["info"] >> 16, str(message.get_attr("TCA_KIND"))
        options = message.get_attr("TCA_OPTIONS")
        name = options.get_attr("TCA_BPF_NAME") if kind == "bpf" and options is not None else None
        is_ours = name is not None and str(name).startswith("llb/")
        has_ours |= is_ours
        # A message without a handle is the head of a chain, and says nothing of what is in it.
        if not is_ours and message["handle"]:
            text = f"a filter of kind {kind}{f' ({name})' if name else ''} of priority {priority}"
            found.setdefault((priority, kind), text)
    return [(priority, text) for (priority, _), text in found.items()], has_ours


def _on_tcx(index: int) -> list[OtherProgram]:
    """Those at the ingress, and at the egress, which what LLB sends comes to. A classifier that is
    still to be hung there is hung behind those that are."""
    hanging = tcx.programs(index, bpf_syscall.TCX_INGRESS)
    first = next((place for place, each in enumerate(hanging) if each.is_ours), len(hanging))
    found = [
        OtherProgram(f"{_told(each)} at the ingress", place < first)
        for place, each in enumerate(hanging)
        if not each.is_ours
    ]
    leaving = tcx.programs(index, bpf_syscall.TCX_EGRESS)
    return found + [OtherProgram(f"{_told(each)} at the egress", False) for each in leaving]


def _told(program: tcx.Hanging) -> str:
    return f"a program on TCX (id {program.number}{program.name and f', {program.name}'})"


def hands_to_netfilter(ip: IPRoute, index: int) -> bool:
    """Say whether an interface is a bridge that hands what it gets to iptables, before any hook of
    LLB's: by its own setting, or by that of all bridges."""
    link = ip.link("get", index=index)[0].get_attr("IFLA_LINKINFO")
    if link is None or link.get_attr("IFLA_INFO_KIND") != "bridge":
        return False
    settings = link.get_attr("IFLA_INFO_DATA")
    own = (f"IFLA_BR_NF_CALL_{each}" for each in ("IPTABLES", "IP6TABLES"))
    if settings is not None and any(settings.get_attr(each) for each in own):
        return True
    return any(
        host.is_on(f"net/bridge/bridge-nf-call-{each}") for each in ("iptables", "ip6tables")
    )


def merges_received_segments(interface: str) -> bool:
    """Say whether large receive offload (LRO) is on: what it merges can't be sent on as it was."""
    value = array.array("I", [_ETHTOOL_GFLAGS, 0])
    request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            fcntl.ioctl(asking, _SIOCETHTOOL, request)
        except OSError:  # It has no such thing.
            return False
    return bool(value[1] & _ETH_FLAG_LRO)


def silent_neighbours(ip: IPRoute, addresses: Iterable[Address]) -> set[Address]:
    """Return those that did not answer when the kernel last looked for them (ARP, or NDP)."""
    wanted = {str(address): address for address in addresses}
    return {
        wanted[address]
        for family in (4, 6)
        for (_, address), each in links.neighbours(ip, family).items()
        if each.state in _SILENT and address in wanted
    }
