"""Read llb.toml into values that everything else can trust.

Parsed once, here: addresses, durations and names come out as types, and an error names file, key,
value and remedy. What is not here: the shape of each table (`config_file`), the options of a
provider (`plugins`), and what only the host can tell, such as whether an interface exists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from llb_core.config_file import FileTables, HealthTable, ServiceTable
from llb_core.errors import ConfigurationError
from llb_core.guard import Guard
from llb_core.model import (
    Address,
    Endpoint,
    Limits,
    Network,
    Scheduler,
    Service,
    ServiceKey,
    Timeouts,
    Transport,
    WhenAllUnhealthy,
    WhenUnhealthy,
)
from llb_core.planning.capacity import SERVICE_SLOTS
from llb_core.prefix_lists import BadPrefixes, PrefixLists, read_prefix_lists
from llb_core.rules import MOST
from llb_core.validation import parse_toml, problems

_WHAT_FOR = {"backend_cidrs": "are in", "snat_addresses": "get their packets from"}


@dataclass(frozen=True, slots=True)
class LoadBalancerConfig:
    """What belongs to no service: interfaces, addresses of ours, sizes."""

    name: str
    public_interfaces: tuple[str, ...]
    private_interface: str
    backend_cidrs: tuple[Network, ...]
    snat_addresses: tuple[Address, ...]
    snat_ports: tuple[int, int]
    """The first and the last."""
    manage_addresses: bool
    max_connections: int

    def cidrs_of(self, family: int) -> tuple[Network, ...]:
        """Return the backends' networks of an address family (4 or 6)."""
        return tuple(cidr for cidr in self.backend_cidrs if cidr.version == family)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Those that the classifier hangs on, each once: one arm has the same for both sides."""
        return tuple(dict.fromkeys((*self.public_interfaces, self.private_interface)))

    def snat_of(self, family: int) -> tuple[Address, ...]:
        """Return the SNAT addresses of an address family (4 or 6)."""
        return tuple(each for each in self.snat_addresses if each.version == family)


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """How a service's backends are checked; times in seconds, `status` in inclusive ranges.

    `port` is None where the backend's own is asked, `host` where the backend's address is sent.
    """

    type: Literal["tcp", "http", "none"]
    path: str
    host: str | None
    status: tuple[tuple[int, int], ...]
    port: int | None
    interval: float
    timeout: float
    rise: int
    fall: int


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """Which plugin to ask, and its own options, not yet validated. `place` is the table's key."""

    name: str
    options: Mapping[str, Any] = field(repr=False)
    """Not in the repr: there may be a secret among them."""
    place: str


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """A service, and where what is known of its backends comes from."""

    service: Service
    providers: tuple[ProviderConfig, ...]
    health: HealthConfig
    guard: Guard = field(default_factory=Guard)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Who may ask the daemon. `listen` is where it is read over TCP, None for nowhere; the control
    socket belongs to the daemon's own user and group, where None is said."""

    listen: Endpoint | None = None
    socket_owner: str | None = None
    socket_group: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """All of llb.toml. `path` is as it was given; errors about a value begin with it."""

    path: Path
    loadbalancer: LoadBalancerConfig
    services: tuple[ServiceConfig, ...]
    api: ApiConfig = field(default_factory=ApiConfig)

    @property
    def base(self) -> Path:
        """The folder that paths in the file are relative to."""
        return self.path.absolute().parent

    @property
    def vips(self) -> frozenset[Address]:
        """The addresses that services are served on."""
        keys = (key for each in self.services for key in each.service.keys)
        return frozenset(key.endpoint.address for key in keys)

    @property
    def families(self) -> frozenset[int]:
        """The address families (4, 6) that services are served on."""
        return frozenset(
            key.endpoint.address.version for each in self.services for key in each.service.keys
        )


def load(path: Path) -> Config:
    """Read a configuration; raise ConfigurationError with one line for each problem."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file: name one with -c FILE") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 (at byte {error.start})") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Turn the text of a configuration into values; `path` is where it came from."""
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from None
    try:
        tables = FileTables.model_validate(document)
    except ValidationError as error:
        raise _error(path, problems(error, document, model=FileTables)) from None
    clashes = list(_clashes(tables))
    if clashes:
        raise _error(path, clashes)
    prefixes = _prefixes(path, tables)
    return Config(
        path=path,
        loadbalancer=_load_balancer(tables),
        services=tuple(
            _service(name, table, document["services"][name], prefixes[name])
            for name, table in tables.services.items()
        ),
        api=ApiConfig(
            listen=tables.api.listen,
            socket_owner=tables.api.socket_owner,
            socket_group=tables.api.socket_group,
        ),
    )


def _error(path: Path, lines: list[str]) -> ConfigurationError:
    return ConfigurationError("\n".join(f"{path}: {line}" for line in lines))


def _clashes(tables: FileTables) -> Iterator[str]:
    """Yield what is wrong between keys that are right by themselves."""
    balancer = tables.loadbalancer
    if balancer.private_interface is None and len(balancer.public_interface) > 1:
        yield "loadbalancer.private_interface: is missing: say which interface leads to backends"
    for field_name in ("public_interface", "backend_cidrs", "snat_addresses"):
        for index, value in enumerate(values := getattr(balancer, field_name)):
            if value in values[:index]:
                yield f"loadbalancer.{field_name}[{index}]: {value} is there twice"
    low, high = balancer.snat_ports
    owners: dict[ServiceKey, str] = {}
    for name, table in tables.services.items():
        if len(table.address) > len({address.version for address in table.address}):
            yield f"services.{name}.address: more than one address of a family: make two services"
            continue
        for key in _keys(table):
            owner = owners.setdefault(key, name)
            if owner != name:
                yield f"services.{name}.address: {key} is the address of services.{owner} already"
            if key.endpoint.address in balancer.snat_addresses and low <= key.endpoint.port <= high:
                yield (
                    f"services.{name}.address: {key} is a SNAT address with a port among "
                    "loadbalancer.snat_ports: take another address"
                )
    for family, number in Counter(key.endpoint.address.version for key in owners).items():
        if number > SERVICE_SLOTS:
            yield (
                f"services: {number} with an IPv{family} address, the classifier takes "
                f"{SERVICE_SLOTS}: serve some by another balancer"
            )
    yield from _missing_families(tables)


def _missing_families(tables: FileTables) -> Iterator[str]:
    """Yield what a service's address family lacks: a way to backends and back."""
    users: dict[int, str] = {}
    for name, table in tables.services.items():
        for address in table.address:
            users.setdefault(address.version, f"services.{name} is served on {address}")
    for field_name, what in (("backend_cidrs", "network"), ("snat_addresses", "address")):
        known = {each.version for each in getattr(tables.loadbalancer, field_name)}
        for family, why in sorted(users.items()):
            if family not in known:
                yield (
                    f"loadbalancer.{field_name}: has no IPv{family} {what}, and {why}: add one "
                    f"that IPv{family} backends {_WHAT_FOR[field_name]}"
                )


def _prefixes(path: Path, tables: FileTables) -> dict[str, PrefixLists]:
    """Return whom each service lets in."""
    found: dict[str, PrefixLists] = {}
    problems: list[str] = []
    for name, table in tables.services.items():
        try:
            found[name] = read_prefix_lists(name, table, path.absolute().parent)
        except BadPrefixes as error:
            problems += error.lines
    for place, family in enumerate((4, 6)):
        total = sum(len(each.rules[place]) for each in found.values() if each.rules)
        if total > MOST:
            problems.append(
                f"services: {total} IPv{family} prefixes are allowed or denied, the classifier "
                f"takes {MOST}: join them into larger ones"
            )
    if problems:
        raise _error(path, problems)
    return found


def _load_balancer(tables: FileTables) -> LoadBalancerConfig:
    table = tables.loadbalancer
    return LoadBalancerConfig(
        name=table.name,
        public_interfaces=tuple(table.public_interface),
        private_interface=table.private_interface or table.public_interface[0],
        backend_cidrs=tuple(table.backend_cidrs),
        snat_addresses=tuple(table.snat_addresses),
        snat_ports=table.snat_ports,
        manage_addresses=table.manage_addresses,
        max_connections=table.max_connections,
    )


def _service(
    name: str, table: ServiceTable, document: Mapping[str, Any], prefixes: PrefixLists
) -> ServiceConfig:
    health = table.health or HealthTable()
    kind = health.type or ("tcp" if table.protocol == "tcp" else "none")
    is_list = isinstance(document["provider"], list)
    return ServiceConfig(
        service=Service(
            name=name,
            keys=tuple(_keys(table)),
            scheduler=Scheduler(table.scheduler),
            affinity_prefixes=(table.affinity_prefix, table.affinity_prefix_ipv6),
            slow_start=table.slow_start,
            access=prefixes.access,
            rules=prefixes.rules,
            limits=Limits(**table.limits.model_dump()),
            when_unhealthy=WhenUnhealthy(table.when_unhealthy),
            when_all_unhealthy=WhenAllUnhealthy(table.when_all_unhealthy),
            timeouts=Timeouts(**table.timeouts.model_dump()),
            reset_idle=table.reset_idle,
            is_checked=kind != "none",
        ),
        providers=tuple(
            ProviderConfig(
                name=provider.name,
                options=provider.model_extra or {},
                place=f"services.{name}.provider" + (f"[{index}]" if is_list else ""),
            )
            for index, provider in enumerate(table.provider)
        ),
        guard=Guard(table.guard.loss, table.guard.hold, table.guard.backends),
        health=HealthConfig(**health.model_dump() | {"type": kind}),
    )


def _keys(table: ServiceTable) -> Iterator[ServiceKey]:
    for address in sorted(table.address, key=lambda address: address.version):
        yield ServiceKey(Endpoint(address, table.port), Transport(table.protocol))
