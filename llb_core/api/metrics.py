"""What the daemon tells Prometheus of its services and backends: names, and where values come from.

Pure: from the same views as the control socket's answers to text. docs/metrics.md lists every one,
and a test holds the two together. What the daemon does itself is counted in `meters`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from llb_core.api.exposition import Family, Number, labels

View = Mapping[str, Any]
Drops = Mapping[tuple[str, str, str], int]
"""Packets dropped, by verdict's name, service and backend; an empty name is nobody's."""
Tables = Mapping[tuple[str, str], tuple[int | None, int]]
"""Entries in use, and room, by table and address family."""

_MODES = ("active", "draining", "ending", "waiting", "retired")
_HEALTH = {"healthy": 1, "unhealthy": 0}


def _counter(name: str, text: str) -> Family:
    return Family(name, "counter", text)


def _gauge(name: str, text: str) -> Family:
    return Family(name, "gauge", text)


_BUILD = _gauge("llb_build_info", "1; its labels say which version runs, and on which kernel.")
_STARTED = _gauge("llb_start_time_seconds", "When the daemon started, since 1970.")
_TURNED = _gauge("llb_last_turn_timestamp_seconds", "When the last turn ended, since 1970.")
_PACKETS = _counter("llb_packets_total", "Packets seen, by verdict.")
_DROPS = _counter("llb_drops_total", "Packets dropped, by reason, service and backend.")
_CONNECTIONS = _gauge("llb_connections", "Connections in the tables, by state.")
_ENTRIES = _gauge("llb_table_entries", "Entries in use, by table.")
_ROOM = _gauge("llb_table_entries_limit", "Entries that a table has room for.")
_IS_READY = _gauge("llb_provider_ready", "Whether a provider has ever answered.")
_IS_UP = _gauge("llb_provider_up", "Whether a provider answers now.")
_AGE = _gauge("llb_provider_answer_age_seconds", "Seconds since a provider last answered.")
_KEPT = _gauge("llb_service_kept", "Whether a service stays as it was, its provider being silent.")
_BY_MODE = _gauge("llb_service_backends", "Backends of a service, by what the classifier does.")
_UNHEALTHY = _gauge("llb_service_backends_unhealthy", "Backends of a service that are unhealthy.")
_PORTS = _gauge("llb_backend_snat_ports_in_use", "SNAT ports that connections to a backend use.")
_PORT_ROOM = _gauge("llb_backend_snat_ports_limit", "SNAT ports that each backend has.")

_TRAFFIC: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("packets_total", "Packets forwarded", (("in", "packets_in"), ("out", "packets_out"))),
    ("bytes_total", "Bytes of IP packets forwarded", (("in", "bytes_in"), ("out", "bytes_out"))),
    ("connections_opened_total", "Connections opened", (("", "opened"),)),
    ("drops_total", "Packets dropped", (("", "drops"),)),
)
"""What is counted for a service and for a backend alike: by direction, where there are two."""


@dataclass(frozen=True, slots=True)
class PortUse:
    """The SNAT ports that connections to a backend use, over all services that it stands behind."""

    backend: str
    protocol: str
    used: int
    limit: int


class MetricsText:
    """Writes the metrics; it keeps the labels from one time to the next."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, ...], tuple[str, ...]] = {}

    def write(
        self,
        status: View,
        backends: Sequence[View],
        ports: Iterable[PortUse],
        tables: Tables,
        drops: Drops,
        kernel: str,
    ) -> str:
        """Return everything as text."""
        known, self._labels = self._labels, {}
        parts = [
            *_write_daemon(status, tables, kernel),
            _write_drops(status["verdicts"], drops),
            *_write_providers(status["services"]),
            *self._write_services(status["services"], backends, known),
            *self._write_backends(backends, known),
            *_write_ports(ports),
        ]
        return "".join(parts)

    def _write_services(
        self, services: Sequence[View], backends: Sequence[View], known: Any
    ) -> Iterable[str]:
        directions = [self._directed(("service",), (each["name"],), known) for each in services]
        plain = [each[0] for each in directions]
        yield from _write_traffic("service", services, directions)
        yield _gauge("llb_service_connections", "Connections of a service.").write(
            zip(plain, (each["connections"] for each in services), strict=True)
        )
        by_mode: dict[str, dict[str, int]] = {
            each["name"]: dict.fromkeys(_MODES, 0) for each in services
        }
        for backend in backends:
            if (own := by_mode.get(backend["service"])) is not None:
                own[backend["mode"]] = own.get(backend["mode"], 0) + 1
        yield _BY_MODE.write(
            (f'{{service="{name}",mode="{mode}"}}', number)
            for name, own in by_mode.items()
            for mode, number in own.items()
        )
        yield _UNHEALTHY.write(zip(plain, (each["unhealthy"] for each in services), strict=True))
        yield _KEPT.write(zip(plain, (int(each["is_kept"]) for each in services), strict=True))

    def _write_backends(self, backends: Sequence[View], known: Any) -> Iterable[str]:
        names = ("service", "backend")
        directions = [
            self._directed(names, (each["service"], each["backend"]), known) for each in backends
        ]
        plain = [each[0] for each in directions]
        yield from _write_traffic("backend", backends, directions)
        for name, text, value in _OF_BACKEND:
            yield _gauge(f"llb_backend_{name}", text).write(
                zip(plain, map(value, backends), strict=True)
            )

    def _directed(
        self, names: tuple[str, ...], values: tuple[str, ...], known: Any
    ) -> tuple[str, str, str]:
        """Return the labels as they are, and with each direction, from memory where they are."""
        found: tuple[str, str, str] | None = known.get(values)
        if found is None:
            plain = labels(dict(zip(names, values, strict=True)))
            found = (
                plain,
                f'{plain[:-1]},direction="in"}}',
                f'{plain[:-1]},direction="out"}}',
            )
        self._labels[values] = found
        return found


_OF_BACKEND: tuple[tuple[str, str, Callable[[View], Number | None]], ...] = (
    ("connections", "Connections to a backend.", itemgetter("connections")),
    (
        "healthy",
        "1 where a backend is healthy, 0 where it is not; not there while that is unknown.",
        lambda each: _HEALTH.get(each["health"]),
    ),
    (
        "health_changed_timestamp_seconds",
        "When a backend turned healthy or unhealthy, since 1970.",
        itemgetter("since"),
    ),
    (
        "active",
        "1 where a backend takes new connections, 0 where it does not.",
        lambda each: int(each["mode"] == "active"),
    ),
    ("weight", "The weight of a backend.", itemgetter("weight")),
)


def _write_traffic(
    what: str, views: Sequence[View], directions: Sequence[tuple[str, str, str]]
) -> Iterable[str]:
    columns = {
        direction: [own[place] for own in directions]
        for place, direction in enumerate(("", "in", "out"))
    }
    for name, text, parts in _TRAFFIC:
        family = _counter(f"llb_{what}_{name}", f"{text}, of a {what}.")
        yield family.write(
            itertools.chain.from_iterable(
                zip(columns[direction], map(itemgetter(key), views), strict=True)
                for direction, key in parts
            )
        )


def _write_daemon(status: View, tables: Tables, kernel: str) -> Iterable[str]:
    build = {"version": status["version"], "kernel": kernel, "name": status["name"]}
    yield _BUILD.write([(labels(build), 1)])
    yield _STARTED.write([("", status["started"])])
    yield _TURNED.write([("", status["turned"])])
    verdicts = status["verdicts"]
    yield _PACKETS.write((labels({"verdict": name}), number) for name, number in verdicts.items())
    by_state = status["connections_by_state"] or {}
    yield _CONNECTIONS.write((labels({"state": name}), n) for name, n in by_state.items())
    named = [
        (labels({"table": table, "family": family}), *numbers)
        for (table, family), numbers in tables.items()
    ]
    yield _ENTRIES.write((each, used) for each, used, _ in named)
    yield _ROOM.write((each, room) for each, _, room in named)


def _write_drops(verdicts: Iterable[str], drops: Drops) -> str:
    """A reason that was never met is there, too: for nobody, and with 0."""
    met = {verdict for verdict, _, _ in drops}
    never = {
        (verdict, "", ""): 0
        for verdict in verdicts
        if verdict.startswith(("drop_", "refuse_")) and verdict not in met
    }
    return _DROPS.write(
        (
            labels(
                {
                    "reason": verdict.removeprefix("drop_"),
                    "service": service,
                    "backend": backend,
                }
            ),
            packets,
        )
        for (verdict, service, backend), packets in (never | dict(drops)).items()
    )


def _write_providers(services: Sequence[View]) -> Iterable[str]:
    """A service may ask one provider several times: `number` tells its providers apart."""
    found = [
        (
            labels(
                {
                    "service": service["name"],
                    "provider": source["provider"],
                    "number": str(number),
                }
            ),
            source,
        )
        for service in services
        for number, source in enumerate(service["sources"])
    ]
    yield _IS_READY.write((each, int(source["is_ready"])) for each, source in found)
    yield _IS_UP.write((each, int(not source["error"])) for each, source in found)
    yield _AGE.write((each, source["age"]) for each, source in found)


def _write_ports(ports: Iterable[PortUse]) -> Iterable[str]:
    known = list(ports)
    named = [labels({"backend": each.backend, "protocol": each.protocol}) for each in known]
    yield _PORTS.write(zip(named, (each.used for each in known), strict=True))
    yield _PORT_ROOM.write(zip(named, (each.limit for each in known), strict=True))
