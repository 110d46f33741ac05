"""Operators' orders, and reloads by the control socket, on the real daemon."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llb_core.api.routes import READS
from llb_core.capabilities import NEEDED
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.run_folder import RunFolder
from tests.netns.conftest import EITHER_FAMILY, one_more

pytestmark = pytest.mark.netns


@pytest.fixture
def balancer(balancer: lab.Balancer) -> lab.Balancer:
    """LLB, started, with all its backends active."""
    balancer.start()
    backends = balancer.lab.backends
    wait_until(lambda: all(map(balancer.is_active, backends)), 30, "all are active")
    return balancer


def call(balancer: lab.Balancer, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (*lab.llb_command(), *arguments, "-c", str(balancer.config))
    return balancer.lab.lb.run(*command, check=False, environment={"SUDO_USER": "alice"})


def views(balancer: lab.Balancer, service: str = "web") -> dict[str, dict[str, Any]]:
    found = balancer.control.get("/backends")["backends"]
    return {each["backend"]: each for each in found if each["service"] == service}


def served(balancer: lab.Balancer, requests: int = 40) -> dict[str, int]:
    """Send requests, and count them by the backend that answered."""
    script = f"for i in $(seq {requests}); do curl -sS -m 3 {balancer.lab.url}; done"
    names = balancer.lab.client.run("sh", "-c", script).stdout.split()
    return {name: names.count(name) for name in set(names)}


def is_done(balancer: lab.Balancer, drained: lab.Backend) -> bool:
    (order,) = views(balancer)[drained.endpoint]["orders"]
    return order["done"] is not None


def test_who_ordered_it_when_and_why_is_shown_and_outlives_the_daemon(
    balancer: lab.Balancer,
) -> None:
    first, second, _ = balancer.lab.backends
    assert call(balancer, "drain", first.address, "--why", "new kernel").returncode == 0
    assert call(balancer, "weight", second.endpoint, "7", "-s", "web").stdout == (
        f"web: {second.endpoint} has the weight 7\n"
    )
    assert views(balancer, "echo"), "drained in every service"
    wait_until(lambda: is_done(balancer, first), 30, "the drain is done")
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
    assert call(balancer, "weight", second.endpoint, "provider").returncode == 0
    assert call(balancer, "undrain", first.endpoint).returncode == 0
    assert views(balancer)[second.endpoint]["weight"] == 1
    assert not any(each["orders"] for each in views(balancer).values())


def test_an_ordered_weight_counts(balancer: lab.Balancer) -> None:
    first, second, third = balancer.lab.backends
    call(balancer, "weight", first.endpoint, "0", "-s", "web")
    call(balancer, "weight", second.endpoint, "200", "-s", "web")
    counted = served(balancer, 60)
    assert "b1" not in counted
    assert counted["b2"] > counted.get("b3", 0) * 3
    assert third.endpoint in views(balancer)


@EITHER_FAMILY
def test_disabling_ends_the_connections_and_enabling_gives_new_ones(
    balancer: lab.Balancer,
) -> None:
    others = balancer.lab.backends[1:]
    for each in others:
        call(balancer, "drain", each.endpoint)
    with balancer.lab.client.socket(family=balancer.lab.family) as held:
        held.connect((balancer.lab.vip, lab.PORT))
        only = balancer.lab.backends[0]
        wait_until(lambda: views(balancer)[only.endpoint]["connections"], 30, "it is counted")
        assert call(balancer, "disable", only.address).stdout.splitlines() == [
            f"echo: {lab.endpoint(only.address, lab.UDP_PORT)} is disabled",
            f"web: {only.endpoint} is disabled",
        ]
        wait_until(
            lambda: views(balancer)[only.endpoint]["connections"] == 0, 30, "it has none left"
        )
        assert views(balancer)[only.endpoint]["mode"] == "ending"
    call(balancer, "enable", only.address)
    wait_until(lambda: balancer.is_active(only), 30, "it is back")
    assert set(served(balancer, 3)) == {"b1"}


def test_an_order_for_what_is_not_there_is_refused(balancer: lab.Balancer) -> None:
    there = balancer.lab.backends[0].address
    other = balancer.lab.addresses.backend(99)
    closed = lab.endpoint(there, 1)
    for arguments, message in {
        ("drain", other): f"no service has a backend {other}: see llb backends",
        ("weight", closed, "3"): f"no service has a backend {closed}: see",
        ("disable", there, "-s", "wbe"): 'no service "wbe" has backends: see',
        ("undrain", there): f"{there} is not drained by an order: see llb backends",
        ("enable", there): f"{there} is not disabled by an order: see llb backends",
        ("weight", there, "provider"): f"{there} has no weight by an order: see",
        ("drain", "web"): '"web" is not a backend: write it like 10.0.0.2:8080',
    }.items():
        refused = call(balancer, *arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(f"llb: {message}")
        assert len(refused.stderr.splitlines()) == 1
        assert not any(each["orders"] for each in views(balancer).values())


def test_orders_that_version_0_1_kept_are_taken_over(balancer: lab.Balancer) -> None:
    balancer.stop()
    drained = balancer.lab.backends[0].endpoint
    folder = RunFolder(balancer.name)
    folder.old_orders.write_text(json.dumps({"drained": [{"service": "web", "backend": drained}]}))
    balancer.start()
    assert views(balancer)[drained]["mode"] == "draining"
    assert [each["order"] for each in views(balancer)[drained]["orders"]] == ["drain"]


@EITHER_FAMILY
def test_a_reload_is_shown_applied_and_answered(balancer: lab.Balancer) -> None:
    own = balancer.lab.addresses
    snat = [own.backend(1), own.backend(2)]
    balancer.write_config(snat_addresses=json.dumps(snat), extra=one_more("more", own.other_vip))
    opened = f"open {lab.endpoint(own.other_vip, lab.PORT)}/tcp to service 3"
    for command in (("plan",), ("reload", "--dry-run")):
        planned = json.loads(call(balancer, *command, "--json").stdout)
        assert planned["is_applied"] is False
        assert opened in planned["changes"]
        assert planned["settings"] == [
            f"loadbalancer.snat_addresses: {snat[0]} becomes {', '.join(snat)}"
        ]
        assert "more" not in balancer.llb("status")
    done = call(balancer, "reload")
    assert done.returncode == 0, done.stderr
    assert opened in done.stdout
    wait_until(lambda: "active" in modes(balancer, "more"), 30, "it is checked")
    again = call(balancer, "reload")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == "llb: there was nothing to change\n"


def modes(balancer: lab.Balancer, service: str) -> set[str]:
    return {each["mode"] for each in views(balancer, service).values()}


@pytest.mark.parametrize(
    ("old", "new", "message", "code"),
    [
        ("port           = 80", "prot = 80", "services.web.prot: unknown key", 2),
        ('"eth0"', '"eth7"', 'interface "eth7" does not exist', 1),
    ],
    ids=["file", "host"],
)
def test_a_reload_that_is_refused_says_why_and_changes_nothing(
    balancer: lab.Balancer, old: str, new: str, message: str, code: int
) -> None:
    before = json.loads(call(balancer, "status", "--json").stdout)["services"]
    lab.replace(
        balancer.config,
        balancer.config.read_text().replace(lab.VIP, "203.0.113.9").replace(old, new),
    )
    refused = call(balancer, "reload")
    assert (refused.returncode, refused.stdout) == (code, "")
    assert message in refused.stderr
    now = balancer.control.get("/status")["services"]
    assert [each["addresses"] for each in now] == [each["addresses"] for each in before]
    assert served(balancer, 3)


def test_a_file_that_the_daemon_does_not_run_with_is_not_reloaded(
    balancer: lab.Balancer, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(balancer.config.read_text())
    refused = balancer.lab.lb.run(*lab.llb_command(), "reload", "-c", other, check=False)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"llb: {other}: the daemon runs with {balancer.config}: name that with -c, or restart it\n"
    )


def test_what_the_daemon_answers_is_as_it_is_described(balancer: lab.Balancer) -> None:
    """Every key is described, and each that is described is there."""
    call(balancer, "drain", balancer.lab.backends[0].endpoint, "--why", "for the description")
    served(balancer, 2)
    wait_until(lambda: balancer.control.get("/status")["collection"], 30, "it has collected")
    for route in READS:
        route.answer.model_validate(balancer.control.get(route.path), strict=True)


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
    wait_until(lambda: modes(balancer, "web") == {"active", "retired"}, 30, "the others are gone")
    assert set(served(balancer)) == {"b1"}
    assert balancer.stop() == 0
    assert call(balancer, "detach").returncode == 0


@contextlib.contextmanager
def held(balancer: lab.Balancer) -> Iterator[socket.socket]:
    """A connection through the VIP that has been answered and is open at both ends."""
    with balancer.lab.client.socket(family=balancer.lab.family) as connection:
        connection.connect((balancer.lab.vip, lab.PORT))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        yield connection


def is_reset(connection: socket.socket) -> bool:
    """Wait until the other end is heard of, and say whether that was a reset."""
    try:
        while connection.recv(1000):
            pass
    except ConnectionResetError:
        return True
    return False


def open_at_backends(balancer: lab.Balancer) -> int:
    command = ("ss", "-Htn", "state", "established", f"sport = :{lab.BACKEND_PORT}")
    return sum(len(each.host.run(*command).stdout.splitlines()) for each in balancer.lab.backends)


@EITHER_FAMILY
def test_a_killed_connection_is_reset_at_both_ends(balancer: lab.Balancer) -> None:
    with held(balancer) as killed, held(balancer) as spared:
        host, port, *_ = killed.getsockname()
        client = lab.endpoint(host, port)
        vip = lab.endpoint(balancer.lab.vip, lab.PORT)
        wait_until(lambda: open_at_backends(balancer) >= 2, 30, "both are open")
        before = open_at_backends(balancer)
        done = call(balancer, "kill", client, vip)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"web: {client} to {vip}/tcp, served by")
        assert is_reset(killed)
        wait_until(lambda: open_at_backends(balancer) < before, 30, "the backend was told, too")
        spared.sendall(b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
        assert spared.recv(1000), "the other one goes on"
        again = call(balancer, "kill", client)
        assert again.returncode == 2
        assert f"there is no connection from {client}" in again.stderr


@EITHER_FAMILY
def test_all_connections_of_a_backend_are_killed(balancer: lab.Balancer) -> None:
    first, second, third = balancer.lab.backends
    call(balancer, "drain", second.endpoint)
    call(balancer, "drain", third.endpoint)
    with held(balancer) as one, held(balancer) as other:
        done = json.loads(
            call(balancer, "kill", "--backend", first.address, "-s", "web", "--json").stdout
        )
        assert (done["ended"], done["reset"]) == (2, 2)
        assert {each["backend"] for each in done["connections"]} == {first.endpoint}
        assert is_reset(one)
        assert is_reset(other)
        assert set(served(balancer, 2)) == {"b1"}, "it serves on"


@EITHER_FAMILY
def test_disabling_resets_at_once(balancer: lab.Balancer) -> None:
    with held(balancer) as connection:
        for each in balancer.lab.backends:
            call(balancer, "disable", each.endpoint)
        assert is_reset(connection)


@EITHER_FAMILY
def test_a_drain_is_waited_for_to_the_last_connection(balancer: lab.Balancer) -> None:
    first, second, third = balancer.lab.backends
    call(balancer, "disable", second.endpoint)
    call(balancer, "disable", third.endpoint)
    with held(balancer):
        command = (*lab.llb_command(), "drain", first.endpoint, "--wait", "-c", balancer.config)
        waiting = balancer.lab.lb.start(*command)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == f"web: {first.endpoint} is drained\n"
        pass_over(balancer)
        pass_over(balancer)
        assert waiting.poll() is None, "there is one left"
        (order,) = views(balancer)[first.endpoint]["orders"]
        assert order["done"] is None
    assert waiting.stdout.readline() == f"web: {first.endpoint} has no connections left\n"
    assert waiting.wait(5) == 0
    assert "it has no connections left" in balancer.log.read_text()
    (order,) = views(balancer)[first.endpoint]["orders"]
    assert order["done"] >= order["at"]


@EITHER_FAMILY
def test_at_a_drains_deadline_the_connections_that_are_left_are_reset(
    balancer: lab.Balancer,
) -> None:
    first, second, third = balancer.lab.backends
    call(balancer, "disable", second.endpoint)
    call(balancer, "disable", third.endpoint)
    with held(balancer) as connection:
        done = call(balancer, "drain", first.endpoint, "--wait", "--deadline", "1500ms")
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"web: {first.endpoint} has no connections left\n")
        assert is_reset(connection)
    assert "the deadline of its drain has come: 1 connections are ended" in (
        balancer.log.read_text()
    )


def pass_over(balancer: lab.Balancer) -> None:
    """Wait until the connections have been counted anew."""

    def counted() -> Any:
        return balancer.control.get("/status")["collection"]

    before = counted()
    wait_until(lambda: counted() != before, 30, "they are counted")


def test_the_check_follows_health_orders_and_the_daemon(
    balancer: lab.Balancer, hosts: lab.Lab
) -> None:
    def check(*arguments: str) -> int:
        return call(balancer, "status", "--check", *arguments).returncode

    wait_until(lambda: check() == 0, 30, "all is well")
    for each in balancer.lab.backends[:2]:
        call(balancer, "disable", each.endpoint)
    assert check() == 0, "one is left"
    last = hosts.backends[2]
    last.kill()
    wait_until(lambda: check("-s", "web") == 1, 30, "the last one is found dead")
    last.start()
    wait_until(lambda: check("-s", "web") == 0, 30, "it is back")
    balancer.kill()
    assert check() == 1
    assert check("--maps-suffice") == 0
    assert served(balancer, 3), "as the maps have it"
