"""Turn the instances that Consul names into backends. Pure.

What they look like: https://developer.hashicorp.com/consul/api-docs/health#list-service-instances-for-service
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, StrictInt, ValidationError

from llb_core import MAX_WEIGHT, Backend, Endpoint, ProviderError, problems
from llb_provider_consul.options import ConsulOptions, Treatment

_MOST = 100_000
_SHOWN = 3
"""Problems that a line names before it counts."""

_KINDS = {dict: "an object", str: "a text", bool: "true or false"}

_NODE_MAINTENANCE = "_node_maintenance"
_SERVICE_MAINTENANCE = "_service_maintenance"


class Status(enum.StrEnum):
    """The state of a check, or the worst of an instance's."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    MAINTENANCE = "maintenance"


_BY_SEVERITY = list(Status)


def _none_is_empty(value: object) -> object:
    """Go writes a list that was never made as null."""
    return [] if value is None else value


_Weight = Annotated[StrictInt, Field(ge=0, le=MAX_WEIGHT)]


class _Weights(BaseModel):
    passing: _Weight = Field(1, alias="Passing")
    warning: _Weight = Field(1, alias="Warning")


_EQUAL = _Weights.model_validate({})


class _Node(BaseModel):
    name: str = Field("", alias="Node")
    address: str = Field("", alias="Address")


class _Service(BaseModel):
    id: str = Field("", alias="ID")
    address: str = Field("", alias="Address")
    port: StrictInt = Field(0, alias="Port")
    weights: _Weights | None = Field(None, alias="Weights")
    changed: StrictInt = Field(0, alias="ModifyIndex")


class _Check(BaseModel):
    id: str = Field("", alias="CheckID")
    status: Status = Field(alias="Status")


class _Instance(BaseModel):
    node: _Node = Field(alias="Node")
    service: _Service = Field(alias="Service")
    checks: Annotated[list[_Check], BeforeValidator(_none_is_empty)] = Field(
        default_factory=list, alias="Checks"
    )

    @property
    def status(self) -> Status:
        """The worst of the checks' states."""
        states = [_status(check) for check in self.checks]
        return max(states, key=_BY_SEVERITY.index, default=Status.PASSING)


@dataclass(frozen=True, slots=True)
class Understood:
    """The backends, in Consul's order; and a sentence for each that is registered in two ways."""

    backends: tuple[Backend, ...]
    doubled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Registration:
    backend: Backend
    name: str
    status: Status
    changed: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """Of two for one endpoint, the higher one counts: see README.md."""
        standing = _STANDING.index(self.status)
        return standing, self.changed, self.backend.weight

    def __str__(self) -> str:
        return f"{self.name} ({self.status}, weight {self.backend.weight})"


_STANDING = [Status.CRITICAL, Status.WARNING, Status.PASSING, Status.MAINTENANCE]
"""A critical one is what a process left that has gone; maintenance is what somebody wants."""


def to_backends(instances: object, options: ConsulOptions) -> Understood:
    """Return the backends, each once.

    Raises ProviderError that names the instance for whatever can't be a backend, and never returns
    a part.
    """
    if not isinstance(instances, list):
        kind = "null" if instances is None else _KINDS.get(type(instances), "a number")
        raise ProviderError(
            f"the answer is {kind}, where Consul has a list of instances: does url lead to the "
            "agent itself?"
        )
    if len(instances) > _MOST:
        raise ProviderError(
            f"the answer has {len(instances)} instances, more than {_MOST}: ask for fewer by tags "
            "or filter"
        )
    counting: dict[Endpoint, _Registration] = {}
    doubled: list[str] = []
    faults: list[str] = []
    for place, each in enumerate(instances):
        name = _name(each, place)
        try:
            registration = _to_registration(_Instance.model_validate(each), name, options)
        except ValidationError as error:
            faults.append(f"{name}: {problems(error, each, model=_Instance)[0]}")
            continue
        except ValueError as error:
            faults.append(f"{name}: {error}")
            continue
        if registration is None:
            continue
        endpoint = registration.backend.endpoint
        first = counting.get(endpoint, registration)
        left, counts = sorted((first, registration), key=lambda each: each.rank)
        counting[endpoint] = counts
        if left.backend != counts.backend:
            doubled.append(
                f"{endpoint} is {counts}, and {left}, which does not count: deregister the one "
                "that has gone"
            )
    if faults:
        raise ProviderError(join(faults))
    return Understood(tuple(each.backend for each in counting.values()), tuple(doubled))


def _to_registration(
    instance: _Instance, name: str, options: ConsulOptions
) -> _Registration | None:
    status = instance.status
    treatment = Treatment(getattr(options, status))
    if treatment is Treatment.EXCLUDE:
        return None
    weights = instance.service.weights or _EQUAL
    backend = Backend(
        _endpoint(instance, options),
        weight=weights.warning if status is Status.WARNING else weights.passing,
        draining=treatment is Treatment.DRAIN,
        healthy=_HEALTHY.get(treatment),
        entry=name,
    )
    return _Registration(backend, name, status, instance.service.changed)


_HEALTHY = {Treatment.HEALTHY: True, Treatment.UNHEALTHY: False}


def _endpoint(instance: _Instance, options: ConsulOptions) -> Endpoint:
    text = instance.node.address
    if options.address == "service":
        text = instance.service.address or text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(
            f'address "{text:.60}" is not an IP address: register the instance with one'
        ) from None
    port = instance.service.port if options.port is None else options.port
    if port == 0:
        raise ValueError("it has no port: register it with one, or set the option port")
    if not 1 <= port <= 65_535:
        raise ValueError(f"port {port!s:.20} is not one from 1 to 65535: register one, or set port")
    return Endpoint(address, port)


def _status(check: _Check) -> Status:
    is_maintenance = check.id == _NODE_MAINTENANCE or check.id.startswith(_SERVICE_MAINTENANCE)
    return Status.MAINTENANCE if is_maintenance else check.status


def _name(instance: Any, place: int) -> str:
    """Name an instance as Consul's users know it, or else by its place in the answer and by what
    it has: its ID, or an address."""
    service, node = _part(instance, "Service"), _part(instance, "Node")
    if "ID" in service and "Node" in node:
        return f"{service['ID']!s:.60} on node {node['Node']!s:.60}"
    known = [
        f"{word} {found!s:.60}"
        for word, found in (
            ("ID", service.get("ID")),
            ("address", service.get("Address") or node.get("Address")),
        )
        if found
    ]
    return f"instance {place} of the answer" + (f" ({', '.join(known)})" if known else "")


def _part(instance: object, key: str) -> Mapping[str, Any]:
    part = instance.get(key) if isinstance(instance, dict) else None
    return part if isinstance(part, dict) else {}


def join(lines: Sequence[str]) -> str:
    """Return the first few as one line, and how many more there are."""
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more
