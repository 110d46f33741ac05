"""Operators' orders while the daemon ends and starts again, on the real daemon."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from llb_core.capabilities import NEEDED
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.run_folder import RunFolder
from tests.netns.conftest import start
from tests.netns.steering import call, is_done, modes, served, views
from tests.netns.test_steering import held

pytestmark = pytest.mark.netns


@pytest.fixture
def balancer(balancer: lab.Balancer) -> lab.Balancer:
    """LLB, started, with all its backends active."""
    start(balancer)
    return balancer


def test_who_ordered_it_when_and_why_is_shown_and_outlives_the_daemon(
    balancer: lab.Balancer,
) -> None:
    first, second, _ = balancer.lab.backends
    drained = call(balancer, "drain", first.address, "--why", "new kernel")
    assert drained.code == 0
    assert f"web: {first.endpoint} is drained\n" in drained.out
    assert views(balancer)[first.endpoint]["mode"] == "draining", "when the command returns"
    assert call(balancer, "weight", second.endpoint, "7", "-s", "web").out == (
        f"web: {second.endpoint} has the weight 7\n"
    )
    assert views(balancer, "echo"), "drained in every service"
    wait_until(lambda: is_done(balancer, first), lab.LIMIT, "the drain is done")
    before = views(balancer)
    (drain,) = before[first.endpoint]["orders"]
    assert (drain["order"], drain["by"], drain["why"]) == ("drain", "root for alice", "new kernel")
    assert before[second.endpoint]["weight"] == 7
    balancer.kill()
    balancer.start()
    after = views(balancer)
    assert after[first.endpoint]["orders"] == before[first.endpoint]["orders"]
    assert after[first.endpoint]["mode"] == "draining"
    assert after[second.endpoint]["weight"] == 7
    assert "drain by root for alice" in balancer.llb("backends")
    assert "new kernel" in balancer.llb("backends")
    assert "is drained by root for alice: new kernel" in balancer.log.read_text()
    assert set(served(balancer)) == {"b2", "b3"}
    assert call(balancer, "weight", second.endpoint, "provider").code == 0
    assert call(balancer, "undrain", first.endpoint).code == 0
    assert views(balancer)[second.endpoint]["weight"] == 1
    assert views(balancer)[first.endpoint]["mode"] == "active"
    assert not any(each["orders"] for each in views(balancer).values())


def test_waiting_for_a_drain_goes_on_over_a_restart(balancer: lab.Balancer) -> None:
    with held(balancer) as connection:
        wait_until(lambda: any(connections(balancer).values()), lab.LIMIT, "it is counted")
        (drained,) = (name for name, count in connections(balancer).items() if count)
        command = (*lab.llb_command(), "drain", drained, "--wait", "-c", balancer.config)
        waiting = balancer.lab.lb.start(*command, stderr=subprocess.PIPE)
        assert waiting.stdout is not None
        assert waiting.stderr is not None
        assert waiting.stdout.readline() == f"web: {drained} is drained\n"
        balancer.kill()
        assert waiting.stderr.readline().endswith("the drain stands: waiting for the next\n")
        balancer.start()
        assert views(balancer)[drained]["mode"] == "draining"
        assert waiting.poll() is None, "its connection is there"
        connection.shutdown(socket.SHUT_RDWR)

    assert waiting.wait(lab.LIMIT) == 0
    assert waiting.stdout.read() == f"web: {drained} has no connections left\n"


def connections(balancer: lab.Balancer) -> dict[str, int]:
    """How many connections each backend of `web` has."""
    return {name: view["connections"] for name, view in views(balancer).items()}


def test_orders_that_version_0_1_kept_are_taken_over(balancer: lab.Balancer) -> None:
    balancer.stop()
    drained = balancer.lab.backends[0].endpoint
    folder = RunFolder(balancer.name)
    folder.old_orders.write_text(json.dumps({"drained": [{"service": "web", "backend": drained}]}))
    balancer.start()
    assert views(balancer)[drained]["mode"] == "draining"
    assert [each["order"] for each in views(balancer)[drained]["orders"]] == ["drain"]


def capabilities(pid: int) -> dict[str, set[str]]:
    """Return the sets of every thread of a process, as /proc has them."""
    sets: dict[str, set[str]] = {}
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith(("Cap", "NoNewPrivs")):
                name, _, value = line.partition(":")
                sets.setdefault(name, set()).add(value.strip())
    return sets


def test_after_the_start_it_has_no_capability_but_those_it_needs(
    balancer: lab.Balancer,
) -> None:
    """And with these it does all that it has to: tables, addresses, services, routes."""
    assert balancer.daemon is not None
    served(balancer, 2)
    kept = f"{sum(1 << each for each in NEEDED):016x}"
    none = f"{0:016x}"
    assert capabilities(balancer.daemon.pid) == {
        "CapInh": {none},
        "CapPrm": {kept},
        "CapEff": {kept},
        "CapBnd": {kept},
        "CapAmb": {none},
        "NoNewPrivs": {"1"},
    }
    balancer.stop()
    balancer.start()  # The tables are there, and are opened anew.
    first = balancer.lab.backends[0]
    call(balancer, "drain", first.endpoint)
    assert "b1" not in served(balancer)
    call(balancer, "undrain", first.endpoint)
    balancer.write_backends(balancer.lab.backends[:1])
    wait_until(
        lambda: modes(balancer, "web") == {"active", "retired"}, lab.LIMIT, "the others are gone"
    )
    assert set(served(balancer)) == {"b1"}
    assert balancer.stop() == 0
    assert call(balancer, "detach").code == 0


def test_the_check_follows_health_orders_and_the_daemon(
    balancer: lab.Balancer, hosts: lab.Lab
) -> None:
    def check(*arguments: str) -> int:
        return call(balancer, "status", "--check", *arguments).code

    wait_until(lambda: check() == 0, lab.LIMIT, "all is well")
    for each in balancer.lab.backends[:2]:
        call(balancer, "disable", each.endpoint)
    assert check() == 0, "one is left"
    last = hosts.backends[2]
    last.kill()
    wait_until(lambda: check("-s", "web") == 1, lab.LIMIT, "the last one is found dead")
    last.start()
    wait_until(lambda: check("-s", "web") == 0, lab.LIMIT, "it is back")
    balancer.kill()
    assert check() == 1
    assert check("--maps-suffice") == 0
    assert served(balancer, 3), "as the maps have it"
