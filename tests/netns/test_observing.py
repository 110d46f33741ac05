"""What the commands show of connections while there are some, with a daemon and without."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.run_folder import RunFolder
from tests.netns.conftest import BOTH_FAMILIES, Balance, called, shown

pytestmark = pytest.mark.netns

HOLD = """
import socket, sys
held = [socket.create_connection((sys.argv[1], 80)) for _ in range(int(sys.argv[2]))]
for each in held:
    print(each.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def held(hosts: lab.Lab, count: int) -> Iterator[list[int]]:
    """Hold connections of the client's; yields their ports."""
    process = hosts.client.start(
        *("python3", "-c", HOLD, hosts.vip, str(count)), stdin=subprocess.PIPE
    )
    try:
        yield [int(process.stdout.readline()) for _ in range(count)]
    finally:
        process.kill()


def listed(balancer: lab.Balancer, *arguments: str) -> list[dict[str, Any]]:
    """Return what `llb connections --json` lists."""
    answer = json.loads(shown(balancer, "connections", "--json", *arguments))
    assert answer["total"] >= len(answer["connections"])
    found: list[dict[str, Any]] = answer["connections"]
    return found


def readers(balancer: lab.Balancer) -> list[int]:
    """Return the children of the daemon that read the tables."""
    assert balancer.daemon is not None
    found = []
    for path in Path(f"/proc/{balancer.daemon.pid}/task").glob("*/children"):
        for child in path.read_text().split():
            with suppress(OSError):
                if "table_reader" in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(int(child))
    return found


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_connections_are_listed_chosen_and_put_in_order(balance: Balance, family: int) -> None:
    balancer = balance(family=family)
    with held(balancer.lab, 6) as ports:
        found = listed(balancer, "--state", "established")

        assert sorted(int(each["client"].rpartition(":")[2]) for each in found) == sorted(ports)
        assert {each["service"] for each in found} == {"web"}
        assert {each["vip"] for each in found} == {f"{lab.in_url(balancer.lab.vip)}:80"}
        assert all(each["packets_in"] >= 2 and each["packets_out"] >= 1 for each in found)
        ages = [each["age"] for each in found]
        assert ages == sorted(ages, reverse=True)
        assert len(listed(balancer, "--limit", "2")) == 2
        client = found[0]["client"]
        assert [each["client"] for each in listed(balancer, "--client", client)] == [client]
        backend = found[0]["backend"]
        of_one = listed(balancer, "--backend", backend)
        assert {each["client"] for each in of_one} == {
            each["client"] for each in found if each["backend"] == backend
        }
        backends = [each["backend"] for each in listed(balancer, "--sort", "backend")]
        assert backends == sorted(backends)
        assert len(listed(balancer, "--service", "web")) == 6
        for other in ("192.0.2.0/24", "2001:db8:2::/64"):
            assert listed(balancer, "--client", other) == []


def test_top_tells_who_opens_and_sends_most(balance: Balance) -> None:
    balancer = balance(clients=2)
    with held(balancer.lab, 5):
        answer = json.loads(shown(balancer, "top", "--json", "--seconds", "0.2"))
        of_services = json.loads(shown(balancer, "top", "--json", "--by", "service"))
        text = shown(balancer, "top", "--once", "--by", "backend", "--sort", "connections")

    with socket.socket(socket.AF_UNIX) as patient:
        # As long as the command waits for an answer to begin.
        patient.settimeout(30)
        patient.connect(str(RunFolder(balancer.name).socket))
        patient.sendall(b"GET /top?seconds=60 HTTP/1.1\r\nHost: llb\r\n\r\n")
        assert patient.recv(12) == b"HTTP/1.1 200"
        assert readers(balancer)
    wait_until(lambda: not readers(balancer), lab.LIMIT, "whoever reads for nobody has ended")
    client = next(each for each in answer["top"] if each["connections"] >= 5)
    assert client["bytes"] == client["bytes_in"] + client["bytes_out"]
    assert {each["name"] for each in of_services["top"]} == {"web"}
    assert text.splitlines()[0].startswith("BACKEND")
    assert "10.0.0.1" in text


@BOTH_FAMILIES
def test_who_stands_behind_an_address_that_a_backend_sees(balance: Balance, family: int) -> None:
    timeouts = '[services.web.timeouts]\nclosing = "1s"\nclosed = "1s"\n'
    balancer = balance(family=family, service=timeouts)

    def who(*arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(shown(balancer, "who", *arguments, "--json"))
        return answer

    with held(balancer.lab, 1) as (port,):
        (one,) = listed(balancer)

        answer = who(one["snat"])

        assert [each["client"] for each in answer["connections"]] == [one["client"]]
        assert one["client"].endswith(f":{port}")
        assert answer["ended"] == []
    # ... and for a while after it has closed, and is in no table any more.
    wait_until(
        lambda: not listed(balancer, "--service", "web"), lab.LIMIT, "it is out of the tables"
    )
    answer = who(one["snat"])
    assert (answer["total"], answer["connections"]) == (0, [])
    (ended,) = answer["ended"]
    same = ("service", "protocol", "client", "vip", "snat", "backend")
    assert {name: ended[name] for name in same} == {name: one[name] for name in same}
    assert answer["ended_since"] <= ended["opened"] <= ended["ended"] <= time.time()
    assert who(one["snat"], "--backend", one["backend"])["ended_total"] == 1
    others = [each.endpoint for each in balancer.lab.backends if each.endpoint != one["backend"]]
    assert who(one["snat"], "--backend", others[0])["ended_total"] == 0
    assert one["client"] in shown(balancer, "who", one["snat"])


def test_connections_are_listed_without_a_daemon(balance: Balance) -> None:
    balancer = balance()
    with held(balancer.lab, 3) as ports:
        balancer.kill()

        text = shown(balancer, "connections")

        assert text.splitlines()[0].startswith("SERVICE")
        assert all(f":{port} " in text for port in ports)


def test_what_is_asked_for_wrongly_is_refused(balance: Balance) -> None:
    balancer = balance()
    for wrong in (
        ["--service", "nix"],
        ["--sort", "color"],
        ["--state", "odd"],
        ["--client", "1.2.3"],
    ):
        said = called(balancer, "connections", *wrong)
        assert (said.code, said.out) == (2, "")


def test_events_tell_what_happens_as_it_happens(balance: Balance) -> None:
    balancer = balance()
    backend = balancer.lab.backends[0]
    process = balancer.lab.lb.start(
        *lab.llb_command(), "events", "--json", "-c", str(balancer.config)
    )
    told: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: told.extend(map(json.loads, process.stdout)))
    reader.start()

    def have(kind: str) -> list[dict[str, Any]]:
        return [each for each in told if each["kind"] == kind]

    def whole() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Connections that were opened and closed since it listens."""
        opened = {each["source"]: each for each in have("opened")}
        return [
            (opened[each["source"]], each) for each in have("closed") if each["source"] in opened
        ]

    def have_of_a_request() -> bool:
        balancer.lab.client.run("curl", "-sSf", "-H", "Connection: close", f"http://{lab.VIP}/")
        return bool(whole())

    def have_of_the_backend() -> list[str]:
        known = ("web", backend.endpoint)
        return [
            each["reason"]
            for each in have("unhealthy")
            if (each["service"], each["backend"]) == known and "refused" in each["reason"]
        ]

    try:
        wait_until(have_of_a_request, lab.LIMIT, "a connection is told of")
        backend.kill()
        wait_until(have_of_the_backend, lab.LIMIT, "the backend is told of")
    finally:
        process.kill()
        reader.join()

    opened, closed = whole()[-1]
    assert opened["backend"] == closed["backend"]
    assert closed["reason"] == "finished"
    assert min(closed["bytes_out"], closed["bytes_in"]) > 100
    assert len(have_of_the_backend()) == 1
