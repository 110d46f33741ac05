"""Operators' orders, and reloads by the control socket, on the real daemon."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llb_core.api.routes import READS
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests import calling
from tests.netns.conftest import EITHER_FAMILY, one_more, renewed, shown
from tests.netns.steering import call, modes, served, views
from tests.netns.test_daemon import logged

pytestmark = pytest.mark.netns


@pytest.fixture
def balancer(standing: lab.Balancer, family: int) -> lab.Balancer:
    """LLB with all its backends active: one daemon for all tests here, as it was at its start."""
    return renewed(standing, family)


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
        wait_until(
            lambda: views(balancer)[only.endpoint]["connections"], lab.LIMIT, "it is counted"
        )
        assert call(balancer, "disable", only.address).out.splitlines() == [
            f"echo: {lab.endpoint(only.address, lab.UDP_PORT)} is disabled",
            f"web: {only.endpoint} is disabled",
        ]
        wait_until(
            lambda: views(balancer)[only.endpoint]["connections"] == 0,
            lab.LIMIT,
            "it has none left",
        )
        assert views(balancer)[only.endpoint]["mode"] == "ending"
    call(balancer, "enable", only.address)
    wait_until(lambda: balancer.is_active(only), lab.LIMIT, "it is back")
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
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith(f"llb: {message}")
        assert len(refused.err.splitlines()) == 1
        assert not any(each["orders"] for each in views(balancer).values())


@EITHER_FAMILY
def test_a_reload_is_shown_applied_and_answered(balancer: lab.Balancer) -> None:
    own = balancer.lab.addresses
    snat = [each.backend(1) for each in lab.ADDRESSES.values()]
    more = [*snat, own.backend(2)]
    balancer.write_config(
        families=lab.ADDRESSES,
        snat_addresses=json.dumps(more),
        extra=one_more("more", *(each.other_vip for each in lab.ADDRESSES.values())),
    )
    opened = f"open {lab.endpoint(own.other_vip, lab.PORT)}/tcp to service more"
    for command in (("plan",), ("reload", "--dry-run")):
        planned = json.loads(call(balancer, *command, "--json").out)
        assert planned["is_applied"] is False
        assert any(opened in each for each in planned["changes"])
        assert planned["settings"] == [
            f"loadbalancer.snat_addresses: {', '.join(snat)} becomes {', '.join(more)}"
        ]
        assert "more" not in shown(balancer, "status")
    done = call(balancer, "reload")
    assert done.code == 0, done.err
    assert opened in done.out
    wait_until(lambda: modes(balancer, "more") == {"active"}, lab.LIMIT, "all are checked")
    again = call(balancer, "reload")
    assert (again.code, again.out) == (0, "")
    assert again.err == "llb: there was nothing to change\n"


def test_a_provider_that_fails_is_told_of_and_keeps_no_reload_from_being_applied(
    balancer: lab.Balancer,
) -> None:
    more = one_more("more", balancer.lab.addresses.other_vip)
    balancer.write_config(
        families=lab.ADDRESSES, extra=more.replace("backends.toml", "no-such.toml")
    )
    for command in (("plan",), ("reload",)):
        told = call(balancer, *command, "--json")
        assert told.code == 0, told.err
        (complaint,) = json.loads(told.out)["complaints"]
        assert complaint.startswith("more: provider static: ")
        assert "no-such.toml" in complaint
        assert told.err == f"llb: {complaint}\n"
    os.kill(balancer.control.get("/status")["pid"], signal.SIGHUP)

    def is_told_of_in_the_log() -> bool:
        messages = [line["message"] for line in logged(balancer, "")]
        return (f"reloaded {balancer.config}", complaint) in itertools.pairwise(messages)

    wait_until(is_told_of_in_the_log, lab.LIMIT, "the log has what the reload complains of")
    assert "more" in shown(balancer, "status")
    assert set(served(balancer, 3)) <= {"b1", "b2", "b3"}


@pytest.mark.parametrize(
    ("old", "new", "message", "code"),
    [
        ("port           = 80", "prot = 80", "services.web.prot: unknown key", 2),
        ('"eth0"', '"eth7"', 'interface "eth7" does not exist', 1),
        ('["10.0.0.1"', '["10.0.0.11"', "10.0.0.11 is that of another host on eth1 too", 1),
        ("[loadbalancer]", '[loadbalancer]\nsnat_ports = "1024-40000"', "meets the host's own", 1),
        ('["10.0.0.0/24"', f"{[f'10.{n}.0.0/24' for n in range(0, 130, 2)]}"[:-1], "networks", 1),
    ],
    ids=["file", "host", "address of another", "ports of the host", "too many networks"],
)
def test_a_reload_that_is_refused_says_why_and_changes_nothing(
    balancer: lab.Balancer, old: str, new: str, message: str, code: int
) -> None:
    before = json.loads(call(balancer, "status", "--json").out)["services"]
    lab.replace(
        balancer.config,
        balancer.config.read_text().replace(lab.VIP, "203.0.113.9").replace(old, new),
    )
    assert old not in balancer.config.read_text() or old in new
    for command in ("plan", "reload"):
        refused = call(balancer, command)
        assert (refused.code, refused.out) == (code, "")
        assert message in refused.err
    now = balancer.control.get("/status")["services"]
    assert [each["addresses"] for each in now] == [each["addresses"] for each in before]
    assert served(balancer, 3)


def test_a_file_that_the_daemon_does_not_run_with_is_not_reloaded(
    balancer: lab.Balancer, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(balancer.config.read_text())
    with balancer.lab.lb.entered():
        refused = calling.call("reload", "-c", other)
    assert refused.code == 2
    assert refused.err == (
        f"llb: {other}: the daemon runs with {balancer.config}: name that with -c, or restart it\n"
    )


def test_where_the_page_is_follows_a_reload_or_the_reload_is_refused(
    balancer: lab.Balancer,
) -> None:
    def listen_at(where: str) -> None:
        extra = f'\n[api]\nlisten = "{where}"\n'
        balancer.write_config(families=lab.ADDRESSES, extra=extra)

    listen_at("127.0.0.1:9310")
    nothing = {"source": "daemon", "changes": [], "complaints": []}
    for command, is_applied in (("plan", False), ("reload", True)):
        assert json.loads(call(balancer, command, "--json").out) == nothing | {
            "is_applied": is_applied,
            "settings": ["api.listen: nowhere becomes 127.0.0.1:9310"],
        }
    balancer.lab.lb.run("curl", "-sSf", "http://127.0.0.1:9310/status")
    with balancer.lab.lb.socket() as other:
        other.bind(("0.0.0.0", 9311))
        other.listen()
        for where, why in (
            ("127.0.0.1:9311", "Address already in use"),
            ("192.0.2.7:9312", "Cannot assign requested address"),
        ):
            listen_at(where)
            for command in ("plan", "reload"):
                refused = call(balancer, command)
                assert (refused.code, refused.out, refused.err) == (
                    1, "", f"llb: api.listen: {where} can't be listened on: {why}\n"
                )  # fmt: skip
    balancer.lab.lb.run("curl", "-sSf", "http://127.0.0.1:9310/status")
    status = balancer.control.get("/status")
    assert (status["listen"], status["listen_error"]) == ("127.0.0.1:9310", "")
    listen_at("127.0.0.1:9311")
    assert call(balancer, "reload").out == ("api.listen: 127.0.0.1:9310 becomes 127.0.0.1:9311\n")
    balancer.lab.lb.run("curl", "-sSf", "http://127.0.0.1:9311/status")


def test_a_half_edited_file_keeps_nobody_from_asking_or_ordering(balancer: lab.Balancer) -> None:
    text = balancer.config.read_text()
    assert "port           = 80" in text
    lab.replace(balancer.config, text.replace("[loadbalancer]", "[loadbalancer", 1))
    assert call(balancer, "status", "--check").code == 0
    lab.replace(balancer.config, text.replace("port           = 80", "prt = 80", 1))
    first = balancer.lab.backends[0]
    for command in ("check", "plan", "reload"):
        assert call(balancer, command).code == 2
    for arguments in (
        ("status", "--check"),
        ("top", "--once", "--seconds", "0.1"),
        ("drain", first.endpoint, "--wait"),
        ("undrain", first.endpoint),
        ("weight", first.endpoint, "5"),
        ("weight", first.endpoint, "provider"),
        ("kill", "--backend", first.endpoint),
    ):
        done = call(balancer, *arguments)
        assert done.code == 0, (arguments, done.err)
        assert str(balancer.config) not in done.err
    for arguments, message in {
        ("events", "--kind", "nonsense"): "nonsense",
        ("backends", "wbe"): 'there is no service "wbe"',
        ("detach",): f'runs the balancer "{balancer.name}": stop it\n',
    }.items():
        refused = call(balancer, *arguments)
        assert refused.code != 0
        assert message in refused.err
        assert len(refused.err.splitlines()) == 1


def test_what_the_daemon_answers_is_as_it_is_described(balancer: lab.Balancer) -> None:
    """Every key is described, and each that is described is there."""
    call(balancer, "drain", balancer.lab.backends[0].endpoint, "--why", "for the description")
    served(balancer, 2)
    wait_until(lambda: balancer.control.get("/status")["collection"], lab.LIMIT, "it has collected")
    for route in READS:
        route.answer.model_validate(balancer.control.get(route.path), strict=True)


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


def wait_for_log(balancer: lab.Balancer, text: str) -> None:
    wait_until(lambda: text in balancer.log.read_text(), lab.LIMIT, "the log says so")


def open_at_backends(balancer: lab.Balancer) -> int:
    command = ("ss", "-Htn", "state", "established", f"sport = :{lab.BACKEND_PORT}")
    return sum(len(each.host.run(*command).stdout.splitlines()) for each in balancer.lab.backends)


@EITHER_FAMILY
def test_a_killed_connection_is_reset_at_both_ends(balancer: lab.Balancer) -> None:
    with held(balancer) as killed, held(balancer) as spared:
        host, port, *_ = killed.getsockname()
        client = lab.endpoint(host, port)
        vip = lab.endpoint(balancer.lab.vip, lab.PORT)
        wait_until(lambda: open_at_backends(balancer) >= 2, lab.LIMIT, "both are open")
        before = open_at_backends(balancer)
        done = call(balancer, "kill", client, vip, "--why", "it floods us")
        assert done.code == 0, done.err
        wait_for_log(
            balancer, f"web: the connection of {client} is ended by root for alice: it floods us"
        )
        assert done.out.startswith(f"web: {client} to {vip}/tcp, served by")
        assert is_reset(killed)
        wait_until(
            lambda: open_at_backends(balancer) < before, lab.LIMIT, "the backend was told, too"
        )
        spared.sendall(b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
        assert spared.recv(1000), "the other one goes on"
        again = call(balancer, "kill", client)
        assert again.code == 2
        assert f"there is no connection from {client}" in again.err


@EITHER_FAMILY
def test_all_connections_of_a_backend_are_killed(balancer: lab.Balancer) -> None:
    first, second, third = balancer.lab.backends
    call(balancer, "drain", second.endpoint)
    call(balancer, "drain", third.endpoint)
    with held(balancer) as one, held(balancer) as other:
        of_it = ("--backend", first.address, "-s", "web", "--why", "rack 7")
        done = json.loads(call(balancer, "kill", *of_it, "--json").out)
        assert (done["ended"], done["reset"]) == (2, 2)
        assert {each["backend"] for each in done["connections"]} == {first.endpoint}
        assert is_reset(one)
        assert is_reset(other)
        assert set(served(balancer, 2)) == {"b1"}, "it serves on"
        ended = f"web: the connections of {first.endpoint} are ended by root for alice: rack 7"
        wait_for_log(balancer, ended)


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
    assert waiting.wait(lab.LIMIT) == 0
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
        assert done.code == 0, done.err
        assert done.out.endswith(" has no connections left: its deadline has come\n")
        assert is_reset(connection)
    assert "the deadline of its drain has come: 1 connections are ended" in (
        balancer.log.read_text()
    )


def pass_over(balancer: lab.Balancer) -> None:
    """Wait until the connections have been counted anew."""

    def counted() -> Any:
        return balancer.control.get("/status")["collection"]

    before = counted()
    wait_until(lambda: counted() != before, lab.LIMIT, "they are counted")
