"""What could get in the way of packets on this host: interfaces, sysctls, programs of others."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

from llb_core.config import LoadBalancerConfig
from llb_core.datapath import attach, forwarding, host, inspect
from llb_core.doctor.finding import Finding, State, attempt, judge, some
from llb_core.errors import HostError
from llb_core.model import Address


def look_at_network(
    settings: LoadBalancerConfig,
    families: Collection[int],
    vips: Collection[Address],
    *,
    is_running: bool,
) -> Iterator[Finding]:
    """Look at everything here. What a daemon puts in order when it starts is no fault as long as
    none runs."""
    interfaces = settings.interfaces
    late = State.FAIL if is_running else State.WARN
    with attach.netlink() as ip:
        for interface in interfaces:
            yield from _interface(ip, interface)
        is_to_come = settings.manage_addresses and not is_running
        wanted = {*vips, *settings.snat_addresses}
        yield _addresses(wanted, State.WARN if is_to_come else State.FAIL)
        yield _firewall(ip, interfaces)
    for name in forwarding.sysctls(families, interfaces):
        yield _forwarding(name, late)
    if 4 in families:
        for interface in interfaces:
            yield from _reverse_path(interface)
    yield attempt(
        "SNAT ports",
        partial(host.refuse_shared_ports, settings.snat_ports),
        "clear of the host's own",
        "set loadbalancer.snat_ports, or net.ipv4.ip_local_port_range",
    )


def _interface(ip: Any, interface: str) -> Iterator[Finding]:
    what = f"interface {interface}"
    try:
        index = attach.interface_index(ip, interface)
    except HostError as error:
        yield Finding(what, State.FAIL, str(error), "ip link shows those that there are")
        return
    is_up = inspect.is_up(ip, index)
    yield judge(
        what, is_up, "of Ethernet kind, and up" if is_up else "down", f"ip link set {interface} up"
    )
    merges = inspect.merges_received_segments(interface)
    yield judge(
        f"{what}: offloads",
        not merges,
        "large receive offload (LRO) is on" if merges else "large receive offload is off",
        f"ethtool -K {interface} lro off: what it merges can't be sent on",
    )
    yield _programs(ip, interface, index)


def _firewall(ip: Any, interfaces: Collection[str]) -> Finding:
    """Redirected packets come to no hook of netfilter, not even to those of its family `netdev`;
    but a bridge may hand over what arrives, before it comes to LLB."""
    bridges = []
    for interface in interfaces:
        with contextlib.suppress(HostError):  # There is none of that name, which is told already.
            if inspect.hands_to_netfilter(ip, attach.interface_index(ip, interface)):
                bridges.append(interface)
    return judge(
        "firewall and conntrack",
        not bridges,
        f"what arrives on the bridge {some(bridges)} is handed to iptables before it comes to LLB"
        if bridges
        else "balanced packets pass by them",
        "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, and "
        "the bridge's own nf_call_iptables and nf_call_ip6tables, which ip -d link shows",
        State.WARN,
    )


def _programs(ip: Any, interface: str, index: int) -> Finding:
    what = f"interface {interface}: programs of others"
    try:
        others = inspect.other_programs(ip, index)
    except HostError as error:
        return Finding(what, State.WARN, str(error), "sudo llb doctor")
    order = {True: ", before LLB's", False: ", after LLB's"}
    return judge(
        what,
        not any(each.is_before for each in others),
        some([each.what + order[each.is_before] for each in others]) or "none",
        f"see bpftool net show dev {interface}, tc filter show dev {interface} ingress, the same "
        f"with egress, and ip -d link show {interface}: what it drops or sends on is lost to LLB, "
        "or to whoever LLB sends it to, so take it away, or see that it lets packets of services "
        "and backends pass",
        State.WARN,
    )


def _addresses(wanted: Collection[Address], otherwise: State) -> Finding:
    missing = sorted(map(str, set(wanted) - host.addresses_present()))
    found = f"{some(missing)} missing on this host" if missing else "all are on this host"
    remedy = "llb run adds them, with loadbalancer.manage_addresses = true"
    return judge("VIPs and SNAT addresses", not missing, found, remedy, otherwise)


def _forwarding(name: str, otherwise: State) -> Finding:
    dotted = name.replace("/", ".")
    what = "forwarding of IPv4"
    if "ipv6" in name:
        what = f"interface {name.split('/')[-2]}: forwarding of IPv6"
    try:
        value = host.read_sysctl(name)
    except HostError as error:
        remedy = "is the interface there, and IPv6 not switched off by ipv6.disable?"
        return Finding(what, State.FAIL, str(error), remedy)
    remedy = f"sysctl -w {dotted}=1"
    if otherwise is State.WARN:
        remedy = "llb run switches it on"
    return judge(what, value != "0", f"{dotted} = {value}", remedy, otherwise)


def _reverse_path(interface: str) -> Iterator[Finding]:
    """The kernel takes the stricter of the two (Documentation/networking/ip-sysctl.rst)."""
    names = [f"net/ipv4/conf/{each}/rp_filter" for each in ("all", interface)]
    try:
        value = max(int(host.read_sysctl(name)) for name in names)
    except HostError:
        return  # There is no such interface, which is told already.
    yield judge(
        f"interface {interface}: rp_filter",
        value != 1,
        f"{value}"
        if value != 1
        else "1: answers to health checks, and packets that the host "
        "itself is to reset, are dropped where their way back is another interface",
        f"sysctl -w net.ipv4.conf.{interface}.rp_filter=2 (and conf.all at most 2)",
        State.WARN,
    )
