"""Traffic outlives the daemon: killed, stopped, reloaded under load; and detach ends it cleanly."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Namespace, wait_until
from llb_core.demo.traffic import Tally, Traffic
from llb_core.run_folder import RUN
from tests.netns.conftest import Balance

pytestmark = pytest.mark.netns


def kill_and_start(balancer: lab.Balancer) -> None:
    balancer.kill()
    balancer.start()


def stop_and_start(balancer: lab.Balancer) -> None:
    assert balancer.stop() == 0
    balancer.start()


def reload(balancer: lab.Balancer) -> None:
    turned = balancer.control.get("/status")["turned"]
    balancer.write_config(service='timeouts = { established = "1h" }')
    balancer.reload()
    wait_until(lambda: balancer.control.get("/status")["turned"] > turned, 10, "it has turned")


@pytest.mark.parametrize("trouble", [kill_and_start, stop_and_start, reload])
def test_no_request_fails_by_what_befalls_the_daemon(
    balance: Balance, trouble: Callable[[lab.Balancer], None]
) -> None:
    balancer = balance(clients=2)
    with Traffic(balancer.lab.clients, lab.VIP, lab.PORT, rate=500, workers=32) as traffic:
        traffic.phase("load")
        for _ in range(3):
            requests_go_on(traffic)
            trouble(balancer)
        requests_go_on(traffic)
        tally = traffic.finish()["load"]
    assert not tally.failed
    assert set(tally.answered) == {"b1", "b2", "b3"}


def test_a_connection_outlives_daemons(balance: Balance) -> None:
    balancer = balance()
    with balancer.lab.client.socket() as sock:
        sock.connect((lab.VIP, lab.PORT))
        for number, trouble in enumerate((kill_and_start, reload, stop_and_start, kill_and_start)):
            assert say(sock, f"{number}") == f"{number}"
            trouble(balancer)
        assert say(sock, "still") == "still"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_traffic_runs_on_while_no_daemon_runs(balance: Balance, how: signal.Signals) -> None:
    balancer = balance()
    if how is signal.SIGTERM:
        balancer.stop()
    else:
        balancer.kill()
    with Traffic(balancer.lab.clients, lab.VIP, lab.PORT, rate=500) as traffic:
        traffic.phase("load")
        wait_until(lambda: sent(traffic) > 1000, 15, "requests go on")
        tally = traffic.finish()["load"]
    assert not tally.failed
    assert set(tally.answered) == {"b1", "b2", "b3"}


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the load balancer's host is like each time before LLB starts on it."""
    start = lab.Balancer.start
    recorded: list[str] = []

    def recording(self: lab.Balancer, wait: bool = True) -> None:
        recorded.append(snapshot(self.lab.lb))
        start(self, wait)

    monkeypatch.setattr(lab.Balancer, "start", recording)
    return recorded


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_detach_leaves_the_machine_as_it_was(
    before: list[str], balance: Balance, how: signal.Signals
) -> None:
    balancer = balance()
    (was,) = before
    assert snapshot(balancer.lab.lb) != was
    if how is signal.SIGTERM:
        balancer.stop()
    else:
        balancer.kill()
    balancer.llb("detach")
    assert snapshot(balancer.lab.lb) == was
    assert not list(lab.PINS.glob(f"{balancer.name}*"))
    assert not list(RUN.glob(f"{balancer.name}*"))
    balancer.llb("detach")  # again: nothing is there, and that is no error


def snapshot(host: Namespace) -> str:
    """Whatever LLB might change on its host: addresses, routes, filters, rules, sysctls."""
    parts = [
        host.run(*command.split()).stdout
        for command in (
            "ip -o addr show",
            "ip route show table all",
            "tc qdisc show",
            "tc filter show dev eth0 ingress",
            "tc filter show dev eth1 ingress",
            "nft list ruleset",
        )
    ]
    with host.entered():
        paths = [path for path in Path("/proc/sys/net/ipv4").rglob("*") if path.is_file()]
        readable = [path for path in sorted(paths) if path.stat().st_mode & 0o400]
        parts += [f"{path} = {path.read_text()}" for path in readable]
    return "\n".join(parts)


def say(sock: socket.socket, word: str) -> str:
    """Have the backend say a word, over a connection that stays."""
    sock.send(f"GET /say/{word} HTTP/1.1\r\n\r\n".encode())
    return sock.recv(1000).rsplit(b"\r\n", 1)[1].decode()


def requests_go_on(traffic: Traffic) -> None:
    then = sent(traffic)
    wait_until(lambda: sent(traffic) > then + 200, 10, "requests go on")


def sent(traffic: Traffic) -> int:
    return traffic.tallies().get("load", Tally()).sent
