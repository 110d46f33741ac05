"""What commands print with --json is what docs/json.md says: with a daemon, and by the maps."""

from __future__ import annotations

import json
import select

import pytest

from llb_core.cli.shapes import SHAPES
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.netns.conftest import Balance, called

pytestmark = pytest.mark.netns


def test_every_command_prints_what_is_documented(balance: Balance) -> None:
    balancer = balance()
    backend = balancer.lab.backends[0].endpoint
    url = f"http://{lab.VIP}:{lab.PORT}/"
    balancer.lab.client.run("curl", "-sS", "-m", "30", url)
    seen = set()

    def shaped(command: str, *arguments: str, place: int = 0) -> None:
        printed = called(balancer, *command.split(), "--json", *arguments).out
        SHAPES[command][place].model_validate(json.loads(printed), strict=True)
        seen.add(command)

    wait_until(lambda: balancer.control.get("/status")["connections"], lab.LIMIT, "it is counted")
    wait_until(
        lambda: balancer.control.get("/status")["services"][0]["rates"],
        lab.LIMIT,
        "there are rates",
    )
    for command in (
        "status",
        "status --check",
        "backends",
        "connections",
        "plan",
        "reload",
        "doctor",
    ):
        shaped(command)
    shaped("top")
    shaped("why")
    shaped("why", "198.51.100.11:40000", f"{lab.VIP}:{lab.PORT}", place=2)
    for command in ("drain", "drain --wait", "undrain", "disable", "enable"):
        shaped(command, backend)
    shaped("weight", backend, "3")
    shaped("who", "10.0.0.1:1024")
    served_by = balancer.lab.client.run("curl", "-sS", "-m", "30", url).stdout.strip()
    (served,) = (each for each in balancer.lab.backends if each.name == served_by)
    shaped("kill", "--backend", served.endpoint)
    events = balancer.lab.lb.start(
        *lab.llb_command(), "events", "--json", "-c", str(balancer.config)
    )
    try:
        assert events.stdout is not None
        told = select.poll()
        told.register(events.stdout, select.POLLIN)

        def has_told() -> bool:
            balancer.lab.client.run("curl", "-sS", "-m", "30", url)
            return bool(told.poll(200))

        wait_until(has_told, lab.LIMIT, "it tells of connections")
        SHAPES["events"][0].model_validate(json.loads(events.stdout.readline()), strict=True)
        seen.add("events")
    finally:
        events.kill()
        events.wait()
    balancer.kill()
    for command in ("status", "backends", "connections", "top", "why", "plan"):
        shaped(command, place=1)
    shaped("who", "10.0.0.1:1024", place=1)
    shaped("detach")
    local = {"check", "demo", *(each for each in SHAPES if each.startswith("providers"))}
    assert seen == SHAPES.keys() - local
