"""The shape of llb.toml: its tables, keys, types, ranges and defaults.

What is not here: reading the file, and what only shows when tables are held against each other
(`config`); the keys of a provider, which are the provider's own.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from llb_core.durations import Duration
from llb_core.guard import Guard
from llb_core.model import Address, Endpoint, Network
from llb_core.validation import show

_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")

_GUARD = Guard()

LONGEST_TIMEOUT = 7 * 86400.0
"""The kernel's ticks wrap: an idle time of 24 days can't be told from one to come."""
LOWEST_LISTENED = 1024
"""Lower ports take CAP_NET_BIND_SERVICE, which the daemon gives up (`capabilities`)."""


def parse_address(value: object) -> Address:
    """Return the address of one host, of either family, that others than its neighbours reach."""
    if isinstance(value, str):
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            pass
        else:
            if address.is_multicast or address.is_unspecified or address.is_loopback:
                raise ValueError(f"{show(value)} is not the address of one host on a network")
            if isinstance(address, ipaddress.IPv6Address):
                _refuse_odd_ipv6(value, address)
            return address
    raise ValueError(f"{show(value)} is not an IP address")


def _refuse_odd_ipv6(value: str, address: ipaddress.IPv6Address) -> None:
    if address.ipv4_mapped is not None:
        raise ValueError(f'{show(value)} is an IPv4 address: write "{address.ipv4_mapped}"')
    if address.is_link_local or address.scope_id is not None:
        raise ValueError(f"{show(value)} is known on its link alone: take one that is routed")


def parse_network(value: object) -> Network:
    """Return a network, or the one address that it is."""
    if isinstance(value, str) and "%" not in value:
        try:
            network = ipaddress.ip_network(value, strict=False)
            written = ipaddress.ip_address(value.split("/")[0])
        except ValueError:
            pass
        else:
            if network.network_address != written:
                raise ValueError(f'{show(value)} has bits set beyond its prefix: write "{network}"')
            return network
    raise ValueError(f'{show(value)} is not a network, like "10.0.0.0/24" or "2001:db8::/64"')


def _parse_interface(value: object) -> str:
    if isinstance(value, str) and _INTERFACE.fullmatch(value):
        return value
    raise ValueError(f'{show(value)} is not the name of an interface, like "eth0"')


def parse_name(value: object) -> str:
    """Return a name that can stand in a path, a label and a URL."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ValueError(
        f"{show(value)} is not a name: letters, digits, - and _ only, at most 31, "
        "beginning with a letter or digit"
    )


def _parse_account(value: object) -> str:
    if isinstance(value, str) and _ACCOUNT.fullmatch(value):
        return value
    raise ValueError(f'{show(value)} is not the name of a user or group, like "llb"')


def _parse_ports(value: object) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})\s*-\s*(\d{1,5})", value) if isinstance(value, str) else None
    if match:
        low, high = int(match[1]), int(match[2])
        if 1 <= low <= high <= 65535:
            return low, high
        if 1 <= high < low <= 65535:
            raise ValueError(f'{show(value)} begins with its last port: write "{high}-{low}"')
    raise ValueError(f'{show(value)} is not a range of ports, like "1024-32767"')


def _parse_statuses(value: object) -> tuple[tuple[int, int], ...]:
    """Return the ranges of `"200"`, `"200-399"`, `"200,301-302"` or 200."""
    text = str(value) if isinstance(value, str | int) else ""
    ranges: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?", part)
        if not match or int(match[1]) > int(match[2] or match[1]):
            raise ValueError(f'{show(value)} is not a range of HTTP statuses, like "200-399"')
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return tuple(ranges)


def _parse_share(value: object) -> float:
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    if match and float(match[1]) <= 100:
        return float(match[1]) / 100
    raise ValueError(f'{show(value)} is not a share, like "50%"')


def _parse_path(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"/[!-~]*", value):
        return value
    raise ValueError(f'{show(value)} is not a path of a URL, like "/healthz"')


def _parse_host(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", value):
        return value
    raise ValueError(f'{show(value)} is not the name of a host, like "web.example"')


def _parse_listen(value: object) -> Endpoint:
    match = re.fullmatch(
        r"(?:\[([^]]+)\]|([^:\[\]]+)):(\d{1,5})", value if isinstance(value, str) else ""
    )
    try:
        address = ipaddress.ip_address((match[1] or match[2]) if match else "")
        port = int(match[3]) if match else 0
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise ValueError(
            f'{show(value)} is not an address and a port, like "127.0.0.1:9310" or "[::1]:9310"'
        )
    if port < LOWEST_LISTENED:
        raise ValueError(
            f"{show(value)} has a port below {LOWEST_LISTENED}, and the daemon gives up the "
            "capability for these: take another"
        )
    return Endpoint(address, port)


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


ShortDuration = Annotated[Duration, Field(ge=0.01, le=3600)]
Timeout = Annotated[Duration, Field(ge=0.001, le=LONGEST_TIMEOUT)]
AddressKey = Annotated[Any, BeforeValidator(parse_address)]
NetworkKey = Annotated[Any, BeforeValidator(parse_network)]
InterfaceKey = Annotated[str, BeforeValidator(_parse_interface)]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
AccountKey = Annotated[str, BeforeValidator(_parse_account)]
NameKey = Annotated[str, BeforeValidator(parse_name)]


class _FileTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoadBalancerTable(_FileTable):
    """`[loadbalancer]`."""

    name: NameKey = "llb"
    public_interface: Annotated[list[InterfaceKey], BeforeValidator(_listed), Field(min_length=1)]
    private_interface: InterfaceKey | None = None
    backend_cidrs: Annotated[
        list[Annotated[Any, BeforeValidator(parse_network)]],
        BeforeValidator(_listed),
        Field(min_length=1),
    ]
    snat_addresses: Annotated[list[AddressKey], BeforeValidator(_listed), Field(min_length=1)]
    snat_ports: Annotated[tuple[int, int], BeforeValidator(_parse_ports)] = (1024, 32767)
    manage_addresses: StrictBool = True
    max_connections: Annotated[StrictInt, Field(ge=1, le=100_000_000)] = 1_000_000


class TimeoutsTable(_FileTable):
    """`[services.NAME.timeouts]`, in seconds."""

    opening: Timeout = 5.0
    established: Timeout = 7200.0
    closing: Timeout = 10.0
    closed: Timeout = 60.0
    udp: Timeout = 60.0


class HealthTable(_FileTable):
    """`[services.NAME.health]`."""

    type: Literal["tcp", "http", "none"] | None = None
    """By default "tcp", and "none" for a service over UDP."""
    path: Annotated[str, BeforeValidator(_parse_path)] = "/"
    host: Annotated[str, BeforeValidator(_parse_host)] | None = None
    status: Annotated[tuple[tuple[int, int], ...], BeforeValidator(_parse_statuses)] = ((200, 399),)
    port: Port | None = None
    interval: ShortDuration = 0.5
    timeout: ShortDuration = 0.5
    rise: Annotated[StrictInt, Field(ge=1, le=1000)] = 2
    fall: Annotated[StrictInt, Field(ge=1, le=1000)] = 3

    @model_validator(mode="after")
    def _asks_for_http_only_with_http(self) -> HealthTable:
        strangers = self.model_fields_set & {"path", "host", "status"}
        if strangers and self.type != "http":
            raise ValueError(f'{", ".join(sorted(strangers))}: only with type = "http"')
        return self


class LimitsTable(_FileTable):
    """`[services.NAME.limits]`: 0 for no limit."""

    connections: Annotated[StrictInt, Field(ge=0, le=100_000_000)] = 0
    new_per_second: Annotated[StrictInt, Field(ge=0, le=1_000_000)] = 0
    source_connections: Annotated[StrictInt, Field(ge=0, le=100_000_000)] = 0
    source_new_per_second: Annotated[StrictInt, Field(ge=0, le=1_000_000)] = 0


class GuardTable(_FileTable):
    """`[services.NAME.guard]`: what is held back when most backends are gone at once."""

    loss: Annotated[float, BeforeValidator(_parse_share)] = _GUARD.loss
    hold: Annotated[Duration, Field(ge=0, le=86400)] = _GUARD.hold
    backends: Annotated[StrictInt, Field(ge=1)] = _GUARD.backends


class ProviderTable(_FileTable):
    """`[services.NAME.provider]`: the name of a plugin; the other keys are its own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: StrictStr


class ServiceTable(_FileTable):
    """`[services.NAME]`."""

    address: Annotated[list[AddressKey], BeforeValidator(_listed), Field(min_length=1)]
    port: Port
    protocol: Literal["tcp", "udp"] = "tcp"
    scheduler: Literal["maglev", "round_robin", "least_connections", "source"] = "maglev"
    affinity_prefix: Annotated[StrictInt, Field(ge=1, le=32)] = 32
    affinity_prefix_ipv6: Annotated[StrictInt, Field(ge=1, le=128)] = 128
    slow_start: Annotated[Duration, Field(ge=0, le=3600)] = 0.0
    allow: Annotated[list[NetworkKey], BeforeValidator(_listed)] = Field(default_factory=list)
    allow_file: StrictStr | None = None
    deny: Annotated[list[NetworkKey], BeforeValidator(_listed)] = Field(default_factory=list)
    deny_file: StrictStr | None = None
    when_unhealthy: Literal["keep", "end"] = "keep"
    when_all_unhealthy: Literal["all", "none"] = "all"
    timeouts: TimeoutsTable = Field(default_factory=TimeoutsTable)
    reset_idle: StrictBool = False
    provider: Annotated[list[ProviderTable], BeforeValidator(_listed), Field(min_length=1)]
    health: HealthTable | None = None
    limits: LimitsTable = Field(default_factory=LimitsTable)
    guard: GuardTable = Field(default_factory=GuardTable)

    @model_validator(mode="after")
    def _has_affinity_only_by_source(self) -> ServiceTable:
        strangers = self.model_fields_set & {"affinity_prefix", "affinity_prefix_ipv6"}
        if strangers and self.scheduler != "source":
            raise ValueError(f'{", ".join(sorted(strangers))}: only with scheduler = "source"')
        return self


class ApiTable(_FileTable):
    """`[api]`: who may ask the daemon, and where."""

    listen: Annotated[Any, BeforeValidator(_parse_listen)] = None
    """Where the status page and metrics are, by HTTP; nowhere without it."""
    socket_owner: AccountKey | None = None
    socket_group: AccountKey | None = None


class FileTables(_FileTable):
    """The whole file."""

    loadbalancer: LoadBalancerTable
    api: ApiTable = Field(default_factory=ApiTable)
    services: dict[NameKey, ServiceTable] = Field(default_factory=dict)
