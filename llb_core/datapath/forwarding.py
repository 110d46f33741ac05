"""Have the kernel look up routes for packets that pass through: forwarding, family by family.

For IPv4 that is `net.ipv4.ip_forward`. For IPv6 it is switched on for our own interfaces alone,
which is all that the look-up asks for: the host does not become a router of IPv6 by it.

Where IPv6 forwarding is switched on, on whichever interface, the kernel drops the default routes
that router advertisements have brought to any interface, and takes no more of them on the one that
forwards; unless `accept_ra` is 2 there (Linux, Documentation/networking/ip-sysctl.rst, and
`rt6_purge_dflt_routers` in net/ipv6). So it is set to 2 first: on ours for good, on others for that
moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from llb_core.datapath import host
from llb_core.errors import HostError

_IPV4 = "net/ipv4/ip_forward"
_IPV6 = "net/ipv6/conf"


def sysctls(families: Collection[int], interfaces: Collection[str]) -> list[str]:
    """Return the sysctls that must not be 0 for packets of these families to pass through."""
    names = [_IPV4] if 4 in families else []
    return names + [f"{_IPV6}/{each}/forwarding" for each in interfaces if 6 in families]


def refuse_what_cannot_be(families: Iterable[int], interfaces: Collection[str]) -> None:
    """Raise HostError where packets of these families can't pass, whatever is switched on: where
    IPv6 is off."""
    if 6 not in families:
        return
    if not (host.SYSCTLS / _IPV6).is_dir():
        raise HostError("this kernel runs without IPv6, and a service has an address of it")
    for interface in ("lo", *interfaces):
        host.index_of(interface)
        name = f"{_IPV6}/{interface}/disable_ipv6"
        if host.read_sysctl(name) != "0":
            raise HostError(f"IPv6 is off on interface {interface}: sysctl -w {name}=0")


def switch_on(
    changes: host.Changes, families: Collection[int], interfaces: Collection[str]
) -> list[str]:
    """Switch forwarding on for these families, remembering what was there; return what was done,
    a phrase each. Raises HostError where IPv6 is off."""
    done = []
    if 4 in families and host.set_sysctl(changes, _IPV4, "1"):
        done.append(f"switched {_shown(_IPV4)} on")
    if 6 in families:
        done += _switch_ipv6_on(changes, interfaces)
    return done


def _switch_ipv6_on(changes: host.Changes, interfaces: Collection[str]) -> list[str]:
    refuse_what_cannot_be({6}, interfaces)
    wanted = sysctls({6}, interfaces)
    missing = [name for name in wanted if host.read_sysctl(name) == "0"]
    if not missing:
        return []
    accepting = [name for name in _accepting() if host.set_sysctl(changes, name, "2")]
    done = []
    for name in missing:
        host.set_sysctl(changes, name, "1")
        done.append(f"switched {_shown(name)} on")
    for name in accepting:
        if _forwarding_beside(name) in missing:
            done.append(f"set {_shown(name)} to 2")
        else:
            host.put_back(changes, name)
    return done


def _accepting() -> list[str]:
    """Return the sysctls `accept_ra` of the interfaces that take router advertisements for as long
    as they don't forward."""
    names = [
        str(path.relative_to(host.SYSCTLS))
        for path in sorted((host.SYSCTLS / _IPV6).glob("*/accept_ra"))
        if path.parent.name not in ("all", "default")
    ]
    return [
        name
        for name in names
        if host.read_sysctl(name) == "1" and host.read_sysctl(_forwarding_beside(name)) == "0"
    ]


def _forwarding_beside(name: str) -> str:
    return name.removesuffix("accept_ra") + "forwarding"


def _shown(name: str) -> str:
    return name.replace("/", ".")
