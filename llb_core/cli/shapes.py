"""The JSON that each command prints with --json, as models: docs/json.md is written from them by
`shapes_page`, and a test holds what the commands print against them.
"""

from __future__ import annotations

from typing import Literal

from llb_core.api import schema
from llb_core.api.schema import Answer


class CheckedService(Answer):
    """A service as it is configured."""

    name: str
    addresses: list[str]
    providers: list[str]
    health: Literal["tcp", "http", "none"]


class Checked(Answer):
    """What `llb check` understood of a right configuration."""

    config: str
    name: str
    services: list[CheckedService]


class StatusCheck(Answer):
    """Whether every service has a healthy backend; `faults` says by service why not. Where `source`
    is "maps", whether each has one that takes connections by these: its health is not known."""

    source: Literal["daemon", "maps", "none"]
    is_well: bool
    faults: dict[str, str]


class DoctorFinding(Answer):
    """One thing that was looked at; `remedy` is empty where it is well."""

    what: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str


class Doctor(Answer):
    """What the host lacks. `is_well`: nothing fails."""

    is_well: bool
    findings: list[DoctorFinding]


class Detached(Answer):
    """What was taken away, a phrase each."""

    name: str
    done: list[str]


class MapsServiceView(schema.ServiceState):
    """A service in the pinned maps: as the daemon's, without its providers."""

    rates: None


class MapsStatus(Answer):
    """What the pinned maps hold, where no daemon answers."""

    source: Literal["maps"]
    name: str
    services: list[MapsServiceView]
    verdicts: dict[str, int]


class MapsBackends(Answer):
    """The backends in the pinned maps, where no daemon answers; nobody knows of their health."""

    source: Literal["maps"]
    backends: list[schema.BackendView]


class MapsPlan(Answer):
    """What a daemon would change that is started now. `complaints` as in Reloaded."""

    source: Literal["maps"]
    changes: list[str]
    complaints: list[str]


class MapsConnections(schema.Connections):
    """Connections, read from the pinned maps where no daemon answers."""

    source: Literal["maps"]  # type: ignore[assignment]


class MapsTop(schema.Top):
    """The same, read from the pinned maps where no daemon answers."""

    source: Literal["maps"]  # type: ignore[assignment]


class MapsDrops(schema.Drops):
    """The same, read from the pinned maps where no daemon answers."""

    source: Literal["maps"]  # type: ignore[assignment]


class Step(Answer):
    """A step of a packet's way, in words."""

    step: str
    text: str


class Traced(Answer):
    """Where a packet would go; `remedy` says what to do where it would be dropped, or its next hop
    does not answer."""

    verdict: str
    meaning: str
    remedy: str
    service: str | None
    backend: str | None
    snat: str | None
    client: str | None
    steps: list[Step]


class DrainedBackend(Answer):
    """A drained backend whose last connection has gone, and when."""

    service: str
    backend: str
    done: float


class Drained(Answer):
    """What `llb drain --wait` has waited for."""

    order: Literal["drain"]
    backends: list[DrainedBackend]


class ProviderOption(Answer):
    """An option of a provider; `default` is null where it must be given."""

    name: str
    type: str
    default: str | None
    is_secret: bool
    description: str
    is_required: bool


class ProviderView(Answer):
    """An installed provider, in the words of `llb providers show NAME`."""

    name: str
    distribution: str
    version: str
    summary: str
    options: list[ProviderOption]


class ListedOption(Answer):
    """An option of a provider."""

    name: str
    is_required: bool


class ListedProvider(Answer):
    """An installed provider; `error` says why it can't be imported."""

    name: str
    distribution: str
    version: str
    options: list[ListedOption] | None
    error: str


class Providers(Answer):
    """Every provider that is installed."""

    providers: list[ListedProvider]


class DemoPhase(Answer):
    """A part of the demonstration: requests answered by backend, and failed by reason."""

    phase: str
    title: str
    seconds: float
    requests: int
    answered: dict[str, int]
    failed: dict[str, int]


class Demo(Answer):
    """How the demonstration went; `complaints` are promises that were not kept."""

    ok: bool
    complaints: list[str]
    requests: int
    answered: int
    failed: int
    seconds: dict[str, float]
    phases: list[DemoPhase]


class TriedBackend(Answer):
    """A backend as a provider stated it."""

    backend: str
    weight: int
    draining: bool
    healthy: bool | None


class TriedService(Answer):
    """What a provider answered for a service. `is_whole`: it is the only provider of the service.
    `changes` is null where that can't be told."""

    service: str
    seconds: float
    error: str
    is_whole: bool
    backends: list[TriedBackend]
    changes: list[str] | None


class Tried(Answer):
    """What a provider answered that was tried."""

    provider: str
    services: list[TriedService]


class NewPackage(Answer):
    """The package that was written."""

    name: str
    folder: str
    files: list[str]


SHAPES: dict[str, tuple[type[Answer], ...]] = {
    "status": (schema.Status, MapsStatus),
    "status --check": (StatusCheck,),
    "backends": (schema.Backends, MapsBackends),
    "connections": (schema.Connections, MapsConnections),
    "who": (schema.Who, MapsConnections),
    "events": (schema.Event,),
    "top": (schema.Top, MapsTop),
    "why": (schema.Drops, MapsDrops, Traced),
    "plan": (schema.Reloaded, MapsPlan),
    "reload": (schema.Reloaded,),
    "drain": (schema.Ordered,),
    "drain --wait": (Drained,),
    "undrain": (schema.Ordered,),
    "disable": (schema.Ordered,),
    "enable": (schema.Ordered,),
    "weight": (schema.Ordered,),
    "kill": (schema.Killed,),
    "check": (Checked,),
    "doctor": (Doctor,),
    "detach": (Detached,),
    "providers": (Providers,),
    "providers list": (Providers,),
    "providers show": (ProviderView,),
    "providers test": (Tried,),
    "providers new": (NewPackage,),
    "demo": (Demo,),
}
"""By command; the second is for what is read from the maps, and for `llb why` of a packet."""
