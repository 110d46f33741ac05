"""What operators have ordered for backends: to drain them, to disable them, another weight; by
whom, when and why. Kept in a file, so that it outlives the daemon and the host's reboot; not in
the configuration, which is somebody else's.
"""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llb_core import durable
from llb_core.errors import ConfigurationError, HostError, NotThere
from llb_core.model import (
    MAX_WEIGHT,
    Address,
    BackendOrders,
    Endpoint,
    Order,
    OrderKind,
    ServiceBackend,
    split_port,
)

_NONE = BackendOrders()
_NOT_KEPT = "the order can't be kept, and is not carried out"


@dataclass(frozen=True, slots=True)
class Selection:
    """The backends that an order is about: by address, perhaps by port, perhaps of one service."""

    address: Address
    port: int | None = None
    service: str | None = None

    @classmethod
    def parse(cls, backend: str, service: str | None = None) -> Selection:
        """Read `10.0.0.2:8080`, or `10.0.0.2` for every port; ConfigurationError if it is not."""
        try:
            host, port = split_port(backend)
            return cls(ipaddress.ip_address(host), port, service)
        except ValueError:
            raise ConfigurationError(
                f'"{backend}" is not a backend: write it like 10.0.0.2:8080'
            ) from None

    def of(self, known: Iterable[ServiceBackend]) -> frozenset[ServiceBackend]:
        """Return those that are meant; NotThere where none is."""
        known = frozenset(known)
        if self.service is not None and self.service not in {name for name, _ in known}:
            raise NotThere(
                f'no service "{self.service}" has backends: see llb backends for those there are'
            )
        chosen = self.among(known)
        if not chosen:
            owner = "no service has a" if self.service is None else f"{self.service} has no"
            raise NotThere(f"{owner} backend {self}: see llb backends for those there are")
        return chosen

    def among(self, known: Iterable[ServiceBackend]) -> frozenset[ServiceBackend]:
        """Return those that are meant, perhaps none."""
        return frozenset(
            (name, endpoint)
            for name, endpoint in known
            if endpoint.address == self.address
            and self.port in (None, endpoint.port)
            and self.service in (None, name)
        )

    def __str__(self) -> str:
        return str(self.address) if self.port is None else str(Endpoint(self.address, self.port))


class Orders:
    """The orders that stand, and the file that they are kept in. From any thread, but not from the
    event loop's: a disk may take its time.

    `before` is where an earlier version kept them: read where the file is not there yet.
    """

    def __init__(self, path: Path, before: Path | None = None) -> None:
        self._path = path
        self._changing = threading.Lock()
        standing = _read(path)
        if standing is None and before is not None:
            standing = _read(before)
        self._standing: dict[ServiceBackend, BackendOrders] = standing or {}

    @property
    def standing(self) -> Mapping[ServiceBackend, BackendOrders]:
        """What is ordered, by service and backend."""
        return self._standing

    def under(self, kind: OrderKind) -> frozenset[ServiceBackend]:
        """Return the backends for which an order of that kind stands."""
        return frozenset(
            backend
            for backend, orders in self._standing.items()
            if any(order.kind is kind for order in orders)
        )

    def give(self, backends: Iterable[ServiceBackend], order: Order) -> None:
        """Let an order stand for these backends, in the place of an earlier one about the same.

        HostError where it can't be kept; then it does not stand.
        """
        with self._changing:
            changed = dict(self._standing)
            for backend in backends:
                known = changed.get(backend, _NONE)
                is_weight = order.kind is OrderKind.WEIGHT
                changed[backend] = (
                    replace(known, weight=order) if is_weight else replace(known, traffic=order)
                )
            self._keep(changed, _NOT_KEPT)

    def take_back(self, backends: Iterable[ServiceBackend], kind: OrderKind) -> None:
        """Let no order of that kind stand for these backends any more; HostError as for `give`."""
        with self._changing:
            changed = dict(self._standing)
            for backend in backends:
                known = changed.pop(backend, _NONE)
                kept = [order for order in known if order.kind is not kind]
                if kept:
                    changed[backend] = _together(kept)
            self._keep(changed, _NOT_KEPT)

    def note_done(self, backend: ServiceBackend, done: float | None) -> None:
        """Note when a drained backend was found to have no connections left, None where it has some
        after all. It is so also where it can't be kept: HostError then."""
        with self._changing:
            orders = self._standing.get(backend, _NONE)
            if orders.traffic is not None:
                noted = replace(orders, traffic=replace(orders.traffic, done=done))
                self._standing = {**self._standing, backend: noted}
                self._keep(self._standing, "that a drain is done can't be kept")

    def _keep(self, standing: dict[ServiceBackend, BackendOrders], complaint: str) -> None:
        entries = [
            _entry(backend, order)
            for backend, orders in sorted(standing.items(), key=lambda item: item[0])
            for order in orders
        ]
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            durable.write(self._path, json.dumps({"orders": entries}, indent=1) + "\n")
        except OSError as error:
            raise HostError(f"{self._path}: {complaint}: {error.strerror}") from None
        self._standing = standing


def _entry(backend: ServiceBackend, order: Order) -> dict[str, Any]:
    service, endpoint = backend
    entry = {"service": service, "backend": str(endpoint), "order": str(order.kind)}
    noted = {
        "weight": order.weight,
        "deadline": order.deadline,
        "done": order.done,
        "by": order.by,
        "at": order.at,
        "why": order.why,
    }
    return entry | {key: value for key, value in noted.items() if value not in (None, "")}


def _read(path: Path) -> dict[ServiceBackend, BackendOrders] | None:
    """Return what the file says, None where there is none."""
    try:
        document = json.loads(path.read_text())
        if "orders" not in document:  # What version 0.1 wrote.
            entries = [each | {"order": "drain"} for each in document["drained"]]
        else:
            entries = document["orders"]
        found: dict[ServiceBackend, list[Order]] = {}
        for each in entries:
            backend = (str(each["service"]), parse_endpoint(each["backend"]))
            found.setdefault(backend, []).append(_order(each))
        return {backend: _together(orders) for backend, orders in found.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ConfigurationError) as error:
        raise HostError(
            f"{path}: the operators' orders can't be read ({error}): remove the file, and order "
            "again what must be ordered"
        ) from None


def _order(entry: Mapping[str, Any]) -> Order:
    kind = OrderKind(entry["order"])
    weight = int(entry["weight"]) if kind is OrderKind.WEIGHT else None
    if weight is not None and not 0 <= weight <= MAX_WEIGHT:
        raise ValueError(f"{weight} is not a weight")

    def time_of(key: str) -> float | None:
        return None if entry.get(key) is None else float(entry[key])

    return Order(
        kind=kind,
        by=str(entry.get("by", "")),
        at=time_of("at"),
        why=str(entry.get("why", "")),
        weight=weight,
        deadline=time_of("deadline"),
        done=time_of("done"),
    )


def _together(orders: Iterable[Order]) -> BackendOrders:
    result = _NONE
    for order in orders:
        is_weight = order.kind is OrderKind.WEIGHT
        result = replace(result, weight=order) if is_weight else replace(result, traffic=order)
    return result


def parse_endpoint(text: str, place: str = "") -> Endpoint:
    """Read `10.0.0.2:8080` or `[2001:db8::2]:8080`; ConfigurationError, with the place where it
    stands, if it is not."""
    try:
        return Endpoint.parse(text)
    except ValueError:
        where = f"{place}: " if place else ""
        raise ConfigurationError(
            f'{where}"{text}" is not an address and port: write it like 10.0.0.2:8080 or '
            "[2001:db8::2]:8080"
        ) from None
