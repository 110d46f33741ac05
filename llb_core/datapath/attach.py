"""Hanging the classifiers on the clsact ingress of interfaces, replacing them, taking them away.

Each address family has a program, a filter and a priority of its own. The filters are of no
protocol, as a hook of TCX has none: the programs know their own packets, and one of IPv4 alone
would not see what has a tag of a priority.

Filters of others stay as they are: ours is known by its name and found by it, and gets a handle of
its own. Replacing is done in place, so that no packet gets past.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from llb_core.errors import HostError

PRIORITIES = {4: 10, 6: 11}
"""By address family."""
_ETH_P_ALL = 3
_INGRESS = 0xFFFFFFF2
_CLSACT = 0xFFFF0000
_EEXIST = 17


def filter_name(name: str, family: int = 4) -> str:
    """Return the name that a classifier's filter goes by: of which balancer, and family."""
    return f"llb/{name}/ipv{family}"


@contextmanager
def netlink() -> Iterator[IPRoute]:
    """Open a netlink socket; not inside a running event loop."""
    with IPRoute() as ip:
        yield ip


def interface_index(ip: IPRoute, interface: str) -> int:
    """Return the index of an interface that is up; HostError where there is none."""
    links = list(ip.link("dump", ifname=interface)) if interface else []
    if not links:
        raise HostError(
            f'interface "{interface}" does not exist on this host: see ip link, and '
            "loadbalancer.public_interface and private_interface in the configuration"
        )
    if links[0].get_attr("IFLA_LINKINFO") is None and links[0]["ifi_type"] == 772:
        raise HostError(f'interface "{interface}" is the loopback: LLB needs one of Ethernet kind')
    if links[0]["ifi_type"] != 1:
        raise HostError(f'interface "{interface}" is not of the Ethernet kind')
    return int(links[0]["index"])


def has_clsact(ip: IPRoute, index: int) -> bool:
    """Say whether the interface has a clsact qdisc."""
    return any(each.get_attr("TCA_KIND") == "clsact" for each in ip.get_qdiscs(index=index))


def ensure_clsact(ip: IPRoute, index: int) -> bool:
    """Add the clsact qdisc; False where the interface has one already."""
    try:
        ip.tc("add", "clsact", index)
    except NetlinkError as error:
        if error.code == _EEXIST:
            return False
        raise HostError(f"the kernel refuses a clsact qdisc: {error}") from None
    return True


def has_filters(ip: IPRoute, index: int) -> bool:
    """Say whether any filter hangs on the interface's clsact, either way."""
    return any(
        filters
        for parent in (_INGRESS, 0xFFFFFFF3)
        for filters in [list(ip.get_filters(index=index, parent=parent))]
    )


def remove_clsact(ip: IPRoute, index: int) -> None:
    """Take the clsact qdisc away."""
    try:
        ip.tc("del", "clsact", index)
    except NetlinkError:
        return


def attach(ip: IPRoute, index: int, program: int, name: str, family: int = 4) -> None:
    """Hang a family's program on the ingress, in place of ours where it hangs there already."""
    handle = _our_handle(ip, index, name, family) or _free_handle(ip, index, family)
    try:
        ip.tc(
            "replace-filter",
            "bpf",
            index,
            handle,
            fd=program,
            name=filter_name(name, family),
            parent=_INGRESS,
            prio=PRIORITIES[family],
            protocol=_ETH_P_ALL,
            direct_action=True,
        )
    except NetlinkError as error:
        raise HostError(f"the kernel refuses the filter on interface {index}: {error}") from None


def detach(ip: IPRoute, index: int, name: str) -> bool:
    """Take the filters of every family of ours away; False where none hangs there."""
    done = [detach_family(ip, index, name, family) for family in PRIORITIES]
    return any(done)


def detach_family(ip: IPRoute, index: int, name: str, family: int) -> bool:
    """Take our filter of one address family away; False where it does not hang there."""
    handle = _our_handle(ip, index, name, family)
    if handle is None:
        return False
    ip.tc(
        "del-filter",
        "bpf",
        index,
        handle,
        parent=_INGRESS,
        prio=PRIORITIES[family],
        protocol=_ETH_P_ALL,
    )
    return True


def attached_indices(ip: IPRoute, name: str) -> list[int]:
    """Return the indices of all interfaces that a filter of ours hangs on."""
    return [
        link["index"]
        for link in ip.get_links()
        if any(_our_handle(ip, link["index"], name, family) is not None for family in PRIORITIES)
    ]


def _filters(ip: IPRoute, index: int, family: int) -> list[tuple[str, int]]:
    found = []
    for message in ip.get_filters(index=index, parent=_INGRESS):
        if message.get_attr("TCA_KIND") != "bpf" or message["info"] >> 16 != PRIORITIES[family]:
            continue
        options: Any = message.get_attr("TCA_OPTIONS")
        name = options.get_attr("TCA_BPF_NAME") if options is not None else None
        if name is not None and message["handle"]:
            found.append((str(name), int(message["handle"])))
    return found


def _our_handle(ip: IPRoute, index: int, name: str, family: int) -> int | None:
    ours = filter_name(name, family)
    return next((handle for other, handle in _filters(ip, index, family) if other == ours), None)


def _free_handle(ip: IPRoute, index: int, family: int) -> int:
    taken = {handle for _, handle in _filters(ip, index, family)}
    return next(handle for handle in range(1, 256) if handle not in taken)
