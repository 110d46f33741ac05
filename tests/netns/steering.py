"""Give orders as an operator does, and see what comes of them."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from llb_core.demo import lab
from tests.calling import Called
from tests.netns.conftest import called


def call(balancer: lab.Balancer, *arguments: str) -> Called:
    """Call `llb` as root who was alice."""
    with mock.patch.dict(os.environ, SUDO_USER="alice"):
        return called(balancer, *arguments)


def views(balancer: lab.Balancer, service: str = "web") -> dict[str, dict[str, Any]]:
    found = balancer.control.get("/backends")["backends"]
    return {each["backend"]: each for each in found if each["service"] == service}


def served(balancer: lab.Balancer, requests: int = 40) -> dict[str, int]:
    """Send requests, and count them by the backend that answered."""
    script = f"for i in $(seq {requests}); do curl -sS -m 3 {balancer.lab.url}; done"
    names = balancer.lab.client.run("sh", "-c", script).stdout.split()
    return {name: names.count(name) for name in set(names)}


def is_done(balancer: lab.Balancer, drained: lab.BackendHost) -> bool:
    (order,) = views(balancer)[drained.endpoint]["orders"]
    return order["done"] is not None


def modes(balancer: lab.Balancer, service: str) -> set[str]:
    return {each["mode"] for each in views(balancer, service).values()}
