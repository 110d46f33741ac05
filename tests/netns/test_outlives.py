"""Traffic of both families outlives the daemon: killed, stopped, reloaded under load; detach ends
it cleanly.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llb_core.datapath import Family
from llb_core.demo import lab
from llb_core.demo.network import Namespace, wait_until
from llb_core.demo.traffic import Tally, Traffic
from llb_core.run_folder import RUN
from tests.netns.conftest import Balance

pytestmark = pytest.mark.netns


BOTH = (4, 6)
SHORT = 'timeouts = { closing = "1s", closed = "1s" }'


def kill_and_start(balancer: lab.Balancer) -> None:
    balancer.kill()
    balancer.start()


def stop_and_start(balancer: lab.Balancer) -> None:
    assert balancer.stop() == 0
    balancer.start()


def reload(balancer: lab.Balancer) -> None:
    reload_with(balancer, families=BOTH, service='timeouts = { established = "1h" }')


def reload_with(balancer: lab.Balancer, **changes: Any) -> None:
    """Change the configuration, and wait until a turn was made by it."""
    reloaded = logged(balancer, "reloaded ")
    balancer.write_config(**changes)
    balancer.reload()
    wait_until(lambda: logged(balancer, "reloaded ") > reloaded, lab.LIMIT, "it is reloaded")


def logged(balancer: lab.Balancer, text: str) -> int:
    """How often the daemon has said that."""
    return balancer.log.read_text().count(f'"message": "{text}')


@contextmanager
def requests(balancer: lab.Balancer) -> Iterator[tuple[Traffic, Traffic]]:
    """Requests over each family, IPv4 first; none may fail, and every backend must answer."""
    hosts = balancer.lab
    with (
        Traffic(hosts.clients, hosts.of(4).vip, lab.PORT, rate=100) as ipv4,
        Traffic(hosts.clients, hosts.of(6).vip, lab.PORT, rate=100) as ipv6,
    ):
        both = (ipv4, ipv6)
        for traffic in both:
            traffic.phase("load")
        yield both
        for traffic in both:
            tally = traffic.finish()["load"]
            assert not tally.failed
            assert set(tally.answered) == {"b1", "b2", "b3"}


@pytest.mark.parametrize("trouble", [kill_and_start, stop_and_start, reload])
def test_no_request_fails_by_what_befalls_the_daemon(
    balance: Balance, trouble: Callable[[lab.Balancer], None]
) -> None:
    balancer = balance(clients=2, families=BOTH)
    with requests(balancer) as traffics:
        for _ in range(2):
            requests_go_on(*traffics)
            trouble(balancer)
        requests_go_on(*traffics)


def test_a_connection_outlives_daemons(balance: Balance) -> None:
    balancer = balance(families=BOTH)
    with held(balancer.lab.of(4)) as one, held(balancer.lab.of(6)) as other:
        for number, trouble in enumerate((kill_and_start, reload, stop_and_start)):
            for sock in (one, other):
                assert say(sock, f"{number}") == f"{number}"
            trouble(balancer)
        assert [say(sock, "still") for sock in (one, other)] == ["still", "still"]


def test_traffic_runs_on_while_no_daemon_runs(balance: Balance) -> None:
    balancer = balance(families=BOTH)
    balancer.kill()
    with requests(balancer) as traffics:
        requests_go_on(*traffics, number=250)


def test_a_family_comes_and_goes_by_reloads_and_no_request_fails(balance: Balance) -> None:
    """From IPv4 alone to both and back, twice; the connections of the family that goes go on."""
    balancer = balance(family=4)
    hosts = balancer.lab
    balancer.write_backends(hosts.backends)
    with Traffic(hosts.clients, hosts.vip, lab.PORT, rate=100) as ipv4:
        ipv4.phase("load")
        for turn in range(2):
            requests_go_on(ipv4)
            reload_with(balancer, families=BOTH, service=SHORT)
            balancer.write_backends(hosts.backends, BOTH)
            wait_until(
                lambda: all(map(balancer.is_active, hosts.of(6).backends)),
                lab.LIMIT,
                "IPv6 is served",
            )
            with held(hosts.of(6)) as sock:
                assert say(sock, "hello") == "hello"
                requests_go_on(ipv4)
                # The networks of IPv6 are still there, as in a file that only lost its addresses.
                balancer.write_backends(hosts.backends)
                reload_with(balancer, text=without_ipv6_vips(balancer))
                wait_until(
                    lambda: not answers(hosts.of(6)), lab.LIMIT, "IPv6 is not served any more"
                )
                assert say(sock, "still") == "still"
            assert balancer.control.get("/status")["families"] == [4, 6], turn
        requests_go_on(ipv4)
        tally = ipv4.finish()["load"]
    assert not tally.failed
    # All is over: a start finds nothing of IPv6, and takes it away.
    wait_until(lambda: not is_in_use(balancer, 6), lab.LIMIT, "nothing of IPv6 is left")
    stop_and_start(balancer)
    assert balancer.control.get("/status")["families"] == [4]
    assert not list(lab.PINS.glob(f"{balancer.name}/*/ipv6"))
    assert "ipv6" not in hosts.lb.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout


def without_ipv6_vips(balancer: lab.Balancer) -> str:
    """The configuration with the addresses of IPv4 services only, and all else of both."""
    text = lab.configuration(balancer.lab, balancer.name, families=BOTH, service=SHORT)
    four, six = (lab.ADDRESSES[family].vip for family in BOTH)
    return text.replace(f'["{four}", "{six}"]', f'["{four}"]')


def is_in_use(balancer: lab.Balancer, family: int) -> bool:
    """Say whether a service or a connection, be it closed, is left in the maps of a family."""
    reading = Family.open_reading(balancer.name, family)
    try:
        return reading.is_in_use
    finally:
        reading.close()


def answers(hosts: lab.Lab) -> bool:
    """Say whether a new connection to the VIP is answered."""
    return hosts.client.run("curl", "-s", "-m1", hosts.url, check=False).returncode == 0


@contextmanager
def held(hosts: lab.Lab) -> Iterator[socket.socket]:
    """A connection to the service."""
    with hosts.client.socket(family=hosts.family) as sock:
        sock.connect((hosts.vip, lab.PORT))
        yield sock


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


def test_detach_leaves_the_machine_as_it_was(before: list[str], balance: Balance) -> None:
    balancer = balance(families=BOTH)
    (was,) = before
    assert snapshot(balancer.lab.lb) != was
    balancer.kill()
    balancer.llb("detach")
    assert snapshot(balancer.lab.lb) == was
    assert not list(lab.PINS.glob(f"{balancer.name}*"))
    assert not list(RUN.glob(f"{balancer.name}*"))
    balancer.llb("detach")  # again: nothing is there, and that is no error


def snapshot(host: Namespace, interfaces: tuple[str, ...] = ("eth0", "eth1")) -> str:
    """Whatever LLB might change on its host: addresses, routes, filters, rules, sysctls."""
    parts = [
        host.run(*command.split()).stdout
        for command in (
            "ip -o addr show",
            "ip route show table all",
            "ip -6 route show table all",
            "tc qdisc show",
            *(f"tc filter show dev {each} ingress" for each in interfaces),
            "nft list ruleset",
        )
    ]
    with host.entered():
        folders = [Path("/proc/sys/net", family) for family in ("ipv4", "ipv6")]
        paths = [path for each in folders for path in each.rglob("*") if path.is_file()]
        readable = [path for path in sorted(paths) if is_readable(path)]
        parts += [f"{path} = {path.read_text()}" for path in readable]
    return "\n".join(parts)


def is_readable(path: Path) -> bool:
    """Say whether a sysctl can be read: one that is a secret can't be before it is set."""
    return path.name != "stable_secret" and bool(path.stat().st_mode & 0o400)


def say(sock: socket.socket, word: str) -> str:
    """Have the backend say a word, over a connection that stays."""
    sock.send(f"GET /say/{word} HTTP/1.1\r\n\r\n".encode())
    return sock.recv(1000).rsplit(b"\r\n", 1)[1].decode()


def requests_go_on(*traffics: Traffic, number: int = 60) -> None:
    for traffic in traffics:
        then = sent(traffic)
        wait_until(lambda: sent(traffic) > then + number, lab.LIMIT, "requests go on")  # noqa: B023


def sent(traffic: Traffic) -> int:
    return traffic.tallies().get("load", Tally()).sent
