"""What a fake agent knows: instances, their checks, and an index for each service that moves with
every change of it, so that a query can wait for one.

What is not here: HTTP (`fake_consul`).
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NODE = {"ID": "5d9c1f0c", "Node": "node-1", "Address": "10.1.0.1", "Datacenter": "dc1"}
LONGEST_WAIT = 600.0
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Request:
    """A query that the agent has had."""

    path: str
    params: Mapping[str, list[str]]
    headers: Mapping[str, str]

    @property
    def index(self) -> int:
        return int(self.params.get("index", ["0"])[0])


@dataclass
class Instance:
    """A service's instance, as it was registered."""

    name: str
    id: str
    address: str = ""
    port: int = 0
    tags: list[str] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=lambda: {"Passing": 1, "Warning": 1})
    checks: dict[str, str] = field(default_factory=dict)


class Catalog:
    """The services of one node."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.blocked = 0
        """Blocking queries that wait at this moment."""
        self.index = 100
        self.never_blocks = False
        self._indexes: dict[str, int] = {}
        self._restored = 0
        self._instances: dict[str, Instance] = {}
        self._node_checks = {"serfHealth": "passing"}

    def restore_index(self, index: int) -> None:
        """Go back, as the servers do when an older snapshot is restored."""
        with self.lock:
            self.index = index
            self._indexes = dict.fromkeys(self._indexes, index)
            self._restored += 1
            self.lock.notify_all()

    def touch(self, service: str) -> None:
        """Move a service's index on though nothing about it is another."""
        with self.lock:
            self._moved(service)

    def identities(self) -> set[str]:
        with self.lock:
            return set(self._instances)

    def register(self, body: Mapping[str, Any]) -> None:
        given = {key.casefold(): value for key, value in body.items()}
        instance = Instance(
            name=given["name"],
            id=given.get("id") or given["name"],
            address=given.get("address", ""),
            port=given.get("port", 0),
            tags=given.get("tags") or [],
            meta=given.get("meta") or {},
        )
        instance.weights |= given.get("weights") or {}
        for check in given.get("checks") or []:
            values = {key.casefold(): value for key, value in check.items()}
            identity = values.get("checkid") or f"service:{instance.id}"
            instance.checks[identity] = values.get("status", "critical")
        with self.lock:
            self._instances[instance.id] = instance
            self._moved(instance.name)

    def deregister(self, identity: str) -> None:
        with self.lock:
            self._moved(self._instances.pop(identity).name)

    def set_check(self, check: str, status: str | None) -> None:
        """Set a check of an instance's, or take it away."""
        with self.lock:
            for instance in self._instances.values():
                if check in instance.checks or check.endswith(f":{instance.id}"):
                    if status is None:
                        instance.checks.pop(check, None)
                    else:
                        instance.checks[check] = status
                    self._moved(instance.name)

    def maintain_node(self, *, is_on: bool) -> None:
        with self.lock:
            self._node_checks.pop("_node_maintenance", None)
            if is_on:
                self._node_checks["_node_maintenance"] = "critical"
            for name in {each.name for each in self._instances.values()}:
                self._moved(name)

    def wait_for(self, service: str, request: Request, closing: threading.Event) -> int:
        """Return the service's index, once it is beyond the request's or the time is up."""
        limit = _seconds(request.params.get("wait", ["5m"])[0])
        limit = min(limit, LONGEST_WAIT)
        until = time.monotonic() + limit + random.uniform(0, limit / 16)
        with self.lock:
            restored = self._restored
            self.blocked += 1
            try:
                while (
                    request.index
                    and not self.never_blocks
                    and self._index(service) <= request.index
                    and self._restored == restored
                    and not closing.is_set()
                    and (left := until - time.monotonic()) > 0
                ):
                    self.lock.wait(left)
            finally:
                self.blocked -= 1
            return self._index(service)

    def entries(self, service: str, params: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        with self.lock:
            entries = [
                self._entry(each) for each in self._instances.values() if each.name == service
            ]
        for tag in params.get("tag", []):
            entries = [each for each in entries if tag in each["Service"]["Tags"]]
        for expression in params.get("filter", []):
            matches = _filter(expression)
            entries = [each for each in entries if matches(each)]
        return entries

    def _entry(self, instance: Instance) -> dict[str, Any]:
        checks = self._node_checks | instance.checks
        return {
            "Node": NODE,
            "Service": {
                "ID": instance.id,
                "Service": instance.name,
                "Tags": instance.tags,
                "Address": instance.address,
                "Meta": instance.meta,
                "Port": instance.port,
                "Weights": instance.weights,
                "EnableTagOverride": False,
            },
            "Checks": [
                {"Node": NODE["Node"], "CheckID": check, "Name": check, "Status": status}
                for check, status in checks.items()
            ],
        }

    def _index(self, service: str) -> int:
        return self._indexes.get(service, 1)

    def _moved(self, service: str) -> None:
        self.index += 1
        self._indexes[service] = self.index
        self.lock.notify_all()


def _seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+)(ms|s|m)", duration)
    assert match, duration
    return float(match[1]) * _SECONDS[match[2]]


def _filter(expression: str) -> Callable[[Mapping[str, Any]], bool]:
    """Understand what little of Consul's filter language is needed here."""
    if found := re.fullmatch(r'([\w.]+) == "(.*)"', expression):
        selector, value = found.groups()
        return lambda entry: str(_selected(selector, entry)) == value
    if found := re.fullmatch(r'"(.*)" in ([\w.]+)', expression):
        value, selector = found.groups()
        return lambda entry: value in _selected(selector, entry)
    raise ValueError("Failed to create boolean expression evaluator: no match found")


def _selected(selector: str, entry: Any) -> Any:
    for step in selector.split("."):
        entry = entry.get(step, "")
    return entry
