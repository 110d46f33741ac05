"""What the status page shows at one moment: of thousands of rows, the few that are looked at. Pure.

The page asks again every two seconds and says what it looks at (`Look`); so it stays as light with
ten thousand backends as with ten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llb_core.api.page.drops import meaning
from llb_core.model import Endpoint
from llb_core.recent import Event
from llb_core.samples import PAUSE, RATES, Rates, Samples

View = dict[str, Any]

ROWS = 25
"""Rows of a table that are shown at once."""
_TROUBLES = 8
_EVENTS = 60
_LONGEST_TEXT = 100

_SERVICE_ORDERS = ("name", "connections", "opened", "bytes", "drops")
_BACKEND_ORDERS = ("service", "backend", "health", "connections", "opened", "bytes", "drops")


@dataclass(frozen=True, slots=True)
class Look:
    """What a page looks at: pages are counted from 0, an order begins with `-` where the largest
    come first, `service` and `text` choose backends, `only_troubled` those that need a look;
    `connections` are among the events where they are wanted."""

    services_page: int = 0
    services_order: str = ""
    backends_page: int = 0
    backends_order: str = ""
    service: str = ""
    text: str = ""
    only_troubled: bool = False
    connections: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Look:
        """Read it off a URL's query; what makes no sense there counts as not said."""
        return cls(
            services_page=_number(query.get("services_page", "")),
            services_order=_order(query.get("services_order", ""), _SERVICE_ORDERS),
            backends_page=_number(query.get("backends_page", "")),
            backends_order=_order(query.get("backends_order", ""), _BACKEND_ORDERS),
            service=query.get("service", "")[:_LONGEST_TEXT],
            text=query.get("text", "")[:_LONGEST_TEXT].strip().lower(),
            only_troubled=query.get("only_troubled") == "1",
            connections=query.get("connections") == "1",
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known at one moment; `warnings` are sentences about the whole."""

    status: View
    backends: Sequence[View]
    samples: Samples
    events: Sequence[Event]
    warnings: Sequence[str]
    now: float


def live(moment: Moment, look: Look, connections: Sequence[Event] = ()) -> bytes:
    """Return what the page shows, as JSON; `connections` are events of these."""
    status, samples = moment.status, moment.samples
    services = [dict(view) for view in status["services"]]
    chosen = [view for view in moment.backends if _is_chosen(view, look)]
    page_of_services = _page(services, look.services_page, look.services_order, _SERVICE_KEYS)
    page_of_backends = _page(chosen, look.backends_page, look.backends_order, _BACKEND_KEYS)
    for view in page_of_services["rows"]:
        view["past"] = _past(samples.past_of_service(view["name"]))
    rows = []
    for view in page_of_backends["rows"]:
        past = samples.past_of_backend(view["service"], Endpoint.parse(view["backend"]))
        rows.append({**view, "past": _past(past)})
    page_of_backends["rows"] = rows
    troubles = list(_troubles(services, moment.warnings))
    shown = {
        "now": moment.now,
        "pause": PAUSE,
        "name": status["name"],
        "version": status["version"],
        "started": status["started"],
        "connections": status["connections"],
        # Each address family has tables of its own.
        "max_connections": status["max_connections"] * len(status["families"]),
        "connections_by_state": status["connections_by_state"],
        "total": _past(samples.total()),
        "counts": {
            "services": len(services),
            "backends": sum(view["backends"] for view in services),
            "unhealthy": sum(view["unhealthy"] for view in services),
        },
        "troubles": troubles[:_TROUBLES],
        "more_troubles": max(0, len(troubles) - _TROUBLES),
        "services": page_of_services,
        "backends": {**page_of_backends, "all": len(moment.backends)},
        "drops": _drops(status["verdicts"], samples),
        "events": [
            {"number": each.number, "at": each.at, "level": each.level, "text": each.text}
            for each in _newest(moment.events, connections)
        ],
    }
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()


def _newest(events: Sequence[Event], connections: Sequence[Event]) -> Sequence[Event]:
    """Return both in their order, and of each its newest: many connections push no others out."""
    if not connections:
        return events[:_EVENTS]
    half = _EVENTS // 2
    newest = [*events[:half], *connections[:half]]
    return sorted(newest, key=lambda each: (each.at, each.number), reverse=True)


def _is_chosen(view: View, look: Look) -> bool:
    if look.service and view["service"] != look.service:
        return False
    if look.only_troubled and not _is_troubled(view):
        return False
    return not look.text or any(
        look.text in str(view[key]).lower()
        for key in ("service", "backend", "health", "mode", "reason")
    )


def _is_troubled(view: View) -> bool:
    return bool(view["health"] == "unhealthy" or view["mode"] != "active")


Key = Callable[[View], Any]

_HEALTH_ORDER = {"unhealthy": 0, "unknown": 1, "unchecked": 2, "healthy": 3}

_SERVICE_KEYS: dict[str, Key] = {
    "name": lambda view: view["name"],
    "connections": lambda view: view["connections"] or 0,
    "opened": lambda view: _rate(view, "opened"),
    "bytes": lambda view: _rate(view, "bytes"),
    "drops": lambda view: view["drops"],
}
_BACKEND_KEYS: dict[str, Key] = {
    "service": lambda view: view["service"],
    "backend": lambda view: _by_endpoint(view["backend"]),
    "health": lambda view: (_HEALTH_ORDER[view["health"]], view["mode"] == "active"),
    "connections": lambda view: view["connections"] or 0,
    "opened": lambda view: _rate(view, "opened"),
    "bytes": lambda view: _rate(view, "bytes"),
    "drops": lambda view: view["drops"],
}


def _rate(view: View, name: str) -> float:
    return float(view["rates"][name]) if view["rates"] else 0.0


def _page(views: Sequence[View], page: int, order: str, keys: Mapping[str, Key]) -> View:
    if order:
        views = sorted(views, key=keys[order.lstrip("-")], reverse=order.startswith("-"))
    pages = max(1, -(-len(views) // ROWS))
    page = min(page, pages - 1)
    return {
        "page": page,
        "pages": pages,
        "count": len(views),
        "order": order,
        "rows": list(views[page * ROWS : (page + 1) * ROWS]),
    }


def _past(rates: Rates) -> dict[str, list[float]]:
    """Return the rates by name, to a tenth: no plot shows more."""
    rounded = np.round(rates.astype(np.float64), 1).T.tolist()
    return dict(zip(RATES, rounded, strict=True))


def _drops(verdicts: Mapping[str, int], samples: Samples) -> list[View]:
    """Return the reasons for which packets were dropped, those of most packets first."""
    found = []
    for verdict, number in verdicts.items():
        if verdict.startswith(("drop_", "refuse_")) and number:
            past = np.round(samples.past_of_verdict(verdict).astype(np.float64), 1)[:, 0].tolist()
            reason = verdict.removeprefix("drop_")
            found.append(
                {"reason": reason, "meaning": meaning(reason), "packets": number, "past": past}
            )
    return sorted(found, key=lambda view: -view["packets"])


def _troubles(services: Sequence[View], warnings: Sequence[str]) -> Sequence[View]:
    """Return what somebody should look at, the worst first."""
    bad, less = [], [{"level": "warning", "service": "", "text": text} for text in warnings]
    for view in services:
        name = view["name"]
        count, unhealthy = view["backends"], view["unhealthy"]
        if not view["active"]:
            text = f"{name}: no backend takes connections"
            bad.append({"level": "error", "service": name, "text": text})
        if unhealthy:
            text = f"{name}: {unhealthy} of {count} backends unhealthy ({_why(view)})"
            less.append({"level": "warning", "service": name, "text": text})
        for source in view["sources"]:
            if source["error"]:
                text = f"{name}: provider {source['provider']} fails: {source['error']}"
                less.append({"level": "warning", "service": name, "text": text})
    return bad + less


def _why(service: View) -> str:
    """Return the reasons, each with the backends that it was told of."""
    by_reason: dict[str, list[str]] = {}
    for backend, reason in service["reasons"].items():
        by_reason.setdefault(reason or "no reason given", []).append(backend)
    parts = [f"{reason}: {', '.join(backends)}" for reason, backends in by_reason.items()]
    more = service["unhealthy"] - len(service["reasons"])
    return "; ".join([*parts, f"and {more} more"] if more > 0 else parts)


def _by_endpoint(text: str) -> tuple[int, int, int]:
    endpoint = Endpoint.parse(text)
    return endpoint.address.version, int(endpoint.address), endpoint.port


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else 0


def _order(text: str, known: Sequence[str]) -> str:
    return text if text.removeprefix("-") in known else ""
