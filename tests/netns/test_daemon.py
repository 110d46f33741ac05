"""The daemon's life on a host of its own: start, orders, reload, faults, stop, detach."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.processes import resident
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.netns.conftest import called, one_more, shown, start

pytestmark = pytest.mark.netns


def call(balancer: lab.Balancer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return balancer.lab.lb.run(*lab.llb_command(), *arguments, check=False)


def get(balancer: lab.Balancer, address: str = lab.VIP) -> str:
    """One request through the VIP; the name of the backend that answered."""
    command = ("curl", "-sS", "-m", "30", f"http://{address}:{lab.PORT}/")
    return balancer.lab.client.run(*command).stdout.strip()


def modes(balancer: lab.Balancer, service: str = "web") -> dict[str, str]:
    backends = balancer.control.get("/backends")["backends"]
    return {each["backend"]: each["mode"] for each in backends if each["service"] == service}


def logged(balancer: lab.Balancer, text: str) -> list[dict[str, Any]]:
    whole, _, _ = balancer.log.read_text().rpartition("\n")  # The last may be half written.
    lines = map(json.loads, whole.splitlines())
    return [line for line in lines if text in line["message"]]


def host_as_it_is(balancer: lab.Balancer) -> list[str]:
    """Addresses, forwarding, qdiscs and filters of the load balancer's host."""
    run = balancer.lab.lb.run
    return [
        run("ip", "-brief", "addr").stdout,
        run("cat", "/proc/sys/net/ipv4/ip_forward").stdout,
        run("tc", "qdisc").stdout,
        *(run("tc", "filter", "show", "dev", each, "ingress").stdout for each in ("eth0", "eth1")),
    ]


def test_a_whole_life(balancer: lab.Balancer) -> None:
    before = host_as_it_is(balancer)
    start(balancer)
    assert get(balancer) in {"b1", "b2", "b3"}
    assert balancer.stop() == 0
    assert get(balancer) in {"b1", "b2", "b3"}, "traffic goes on without the daemon"
    balancer.start()
    planned = json.loads(balancer.llb("plan", "--json"))
    assert (planned["source"], planned["settings"], planned["changes"]) == ("daemon", [], [])
    assert balancer.stop() == 0
    assert "removed the classifier from eth0" in balancer.llb("detach")
    assert host_as_it_is(balancer) == before
    assert not list(Path("/run/llb").glob(f"{balancer.name}*"))
    again = call(balancer, "detach", "-c", str(balancer.config))
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing was installed" in again.stderr


def test_in_a_mount_namespace_of_its_own_it_says_what_follows(balancer: lab.Balancer) -> None:
    inside = balancer.lab.lb.path.name
    balancer.command = ("ip", "netns", "exec", inside, *lab.llb_command())
    balancer.start()
    (warned,) = logged(balancer, "/sys/fs/bpf is of this mount namespace alone")
    assert "nsenter --net=" in warned["message"]
    assert not Path("/sys/fs/bpf/llb", balancer.name).exists()
    packet = ("198.51.100.2:40000", f"{lab.VIP}:{lab.PORT}")
    asked = (*balancer.command, "why", *packet, "-c", balancer.config)
    refused = balancer.lab.lb.run(*asked, check=False)
    assert refused.returncode == 1
    assert "than init sees, as under ip netns exec: call it by nsenter --net=" in refused.stderr
    assert balancer.stop() == 0
    assert not logged(balancer, "traffic goes on without the daemon")
    assert logged(balancer, "stopped: /sys/fs/bpf is of this mount namespace alone")


def test_what_it_shows_with_and_without_a_daemon(balancer: lab.Balancer) -> None:
    planned = json.loads(shown(balancer, "plan", "--json"))
    assert planned["source"] == "maps"
    assert f"open {lab.VIP}:{lab.PORT}/tcp to service web" in planned["changes"]
    start(balancer)
    served_by = get(balancer)
    wait_until(lambda: balancer.control.get("/status")["connections"], lab.LIMIT, "it is counted")
    status = json.loads(shown(balancer, "status", "--json"))
    assert status["source"] == "daemon"
    web, echo = status["services"]
    assert (web["name"], web["backends"], web["active"], web["opened"]) == ("web", 3, 3, 1)
    assert [each["provider"] for each in echo["sources"]] == ["static"]
    assert status["verdicts"]["forward_new"] == 1
    (busy,) = (
        each
        for each in json.loads(shown(balancer, "backends", "web", "--json"))["backends"]
        if each["connections"]
    )
    address = {each.name: each.endpoint for each in balancer.lab.backends}[served_by]
    assert (busy["backend"], busy["health"], busy["opened"]) == (address, "healthy", 1)
    assert address in shown(balancer, "backends")
    assert f"{lab.VIP}:{lab.PORT}/tcp" in shown(balancer, "status")

    balancer.kill()
    for command in ("status", "backends", "plan"):
        done = called(balancer, command, "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["source"] == "maps"
        assert "no daemon answers" in done.err
        assert "this is read from the pinned maps" in done.err
    from_maps = json.loads(shown(balancer, "backends", "web", "--json"))["backends"]
    assert {each["backend"]: each["mode"] for each in from_maps} == {
        each.endpoint: "active" for each in balancer.lab.backends
    }
    assert json.loads(shown(balancer, "plan", "--json"))["changes"] == []


def test_a_second_daemon_and_a_detach_beside_it_are_refused(balancer: lab.Balancer) -> None:
    start(balancer)
    assert balancer.daemon is not None
    for command, remedy in (
        ("run", "stop it, or set another loadbalancer.name"),
        ("detach", "stop it"),
    ):
        refused = call(balancer, command, "-c", str(balancer.config))
        assert refused.returncode == 1
        assert refused.stderr == (
            f"llb: another process (pid {balancer.daemon.pid}) runs the balancer "
            f'"{balancer.name}": {remedy}\n'
        )
    assert get(balancer)


def test_a_changed_file_is_in_the_map(balancer: lab.Balancer) -> None:
    """A backend that is new is checked before it is put in."""
    start(balancer)
    for count in (2, 3, 1, 2, 3):
        wanted = {backend.endpoint for backend in balancer.lab.backends[:count]}
        balancer.write_backends(balancer.lab.backends[:count])

        def active() -> set[str]:
            return {name for name, mode in modes(balancer).items() if mode == "active"}

        wait_until(
            lambda wanted=wanted, active=active: active() == wanted, lab.LIMIT, f"{count} are in"
        )


def test_a_host_that_goes_silent_is_out(balancer: lab.Balancer) -> None:
    start(balancer)
    gone = balancer.lab.backends[1]
    gone.host.ip("link set eth0 down")
    try:
        wait_until(lambda: not balancer.is_active(gone), lab.LIMIT, "it is out")
        assert get(balancer) in {"b1", "b3"}
    finally:
        gone.host.ip("link set eth0 up", "route replace default via 10.0.0.1")
    wait_until(lambda: balancer.is_active(gone), lab.LIMIT, "it is back")


def test_a_reload_adds_and_withdraws_services(balancer: lab.Balancer) -> None:
    start(balancer)
    another = "203.0.113.20"
    balancer.write_config(extra=one_more("more", another))
    balancer.reload()
    wait_until(lambda: logged(balancer, "reloaded"), lab.LIMIT, "it is reloaded")
    wait_until(lambda: "active" in modes(balancer, "more").values(), lab.LIMIT, "it is checked")
    assert get(balancer, another) in {"b1", "b2", "b3"}
    assert get(balancer) in {"b1", "b2", "b3"}

    balancer.write_config()
    balancer.reload()
    wait_until(lambda: len(logged(balancer, "reloaded")) == 2, lab.LIMIT, "it is reloaded")
    assert "more" not in shown(balancer, "status")
    assert another not in host_as_it_is(balancer)[0]
    assert get(balancer) in {"b1", "b2", "b3"}


WRONG = [
    ("port           = 80", "prot = 80", "unknown key"),
    ('"static"', '"etcd"', "is not installed"),
    ('"eth0"', '"eth7"', 'interface "eth7" does not exist'),
    ('"eth1"', '"eth7"', 'interface "eth7" does not exist'),
    ("[loadbalancer]", "[loadbalancer]\nmax_connections = 5000", "by a reload"),
]


def test_a_wrong_reload_is_refused_and_changes_nothing(balancer: lab.Balancer) -> None:
    start(balancer)
    before = host_as_it_is(balancer)
    right = balancer.config.read_text()
    _, *last = balancer.lab.backends

    def refusals() -> list[dict[str, Any]]:
        return logged(balancer, "not reloaded, nothing is changed")

    for count, (old, new, message) in enumerate(WRONG, start=1):
        assert old in right
        changed = right.replace(old, new).replace(lab.VIP, "203.0.113.99")
        lab.replace(balancer.config, changed + one_more("more", last[0].address))
        balancer.reload()
        wait_until(lambda count=count: len(refusals()) == count, lab.LIMIT, "it is refused")
        assert message in refusals()[-1]["message"]
        assert host_as_it_is(balancer) == before
        assert get(balancer) in {"b1", "b2", "b3"}

    lab.replace(balancer.config, right)
    balancer.write_backends(last)
    left = {each.endpoint: "active" for each in last}
    wait_until(
        lambda: modes(balancer) == left, lab.LIMIT, "an address that was refused us is no VIP"
    )
    balancer.reload()
    wait_until(lambda: logged(balancer, "reloaded /"), lab.LIMIT, "a right one is taken")


def test_starts_and_says_so_while_a_provider_is_down(balancer: lab.Balancer) -> None:
    (balancer.folder / "udp.toml").unlink()
    balancer.start()
    assert get(balancer) in {"b1", "b2", "b3"}
    (echo,) = (s for s in balancer.control.get("/status")["services"] if s["name"] == "echo")
    assert "udp.toml" in echo["sources"][0]["error"]
    assert "failing: static" in shown(balancer, "status")
    balancer.write_backends(balancer.lab.backends)
    wait_until(lambda: "active" in modes(balancer, "echo").values(), lab.LIMIT, "it answers")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param('"eth0"', '"eth7"', 'interface "eth7" does not exist', id="interface"),
        pytest.param(
            "[loadbalancer]",
            '[loadbalancer]\nsnat_ports = "1024-40000"',
            "snat_ports",
            id="ports of the host",
        ),
    ],
)
def test_a_start_that_fails_leaves_nothing_installed(
    balancer: lab.Balancer, old: str, new: str, message: str
) -> None:
    before = host_as_it_is(balancer)
    lab.replace(balancer.config, balancer.config.read_text().replace(old, new))
    failed = call(balancer, "run", "-c", str(balancer.config))
    assert failed.returncode == 1
    assert failed.stderr.startswith("llb: ")
    assert message in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert host_as_it_is(balancer) == before
    assert not Path("/sys/fs/bpf/llb", balancer.name).exists()


def test_a_start_over_maps_of_another_layout_is_refused_and_leaves_traffic(
    balancer: lab.Balancer,
) -> None:
    start(balancer)
    assert balancer.stop() == 0
    before = host_as_it_is(balancer)
    (version,) = Path("/sys/fs/bpf/llb", balancer.name).iterdir()
    version.rename(version.with_name("99"))
    for command in ("run", "status", "plan"):
        refused = call(balancer, command, "-c", str(balancer.config))
        assert refused.returncode == 1
        assert "maps of layout 99 are pinned" in refused.stderr
        assert host_as_it_is(balancer) == before
        assert get(balancer), "traffic goes on by the old maps"
    call(balancer, "detach", "-c", str(balancer.config))
    assert not Path("/sys/fs/bpf/llb", balancer.name).exists()


def test_without_roots_capabilities_it_says_so(balancer: lab.Balancer) -> None:
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", *lab.llb_command())
    refused = balancer.lab.lb.run(*powerless, "run", "-c", balancer.config, check=False)
    assert refused.returncode == 1
    assert "run as root" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not Path("/sys/fs/bpf/llb", balancer.name).exists()


def test_tells_the_init_system_when_it_is_ready_and_when_it_stops(
    balancer: lab.Balancer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
        init.bind(str(tmp_path / "notify"))
        init.settimeout(lab.LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        balancer.start()
        assert init.recv(100) == b"READY=1"
        balancer.stop()
        assert init.recv(100) == b"STOPPING=1"


def test_is_small_with_a_hundred_backends(balancer: lab.Balancer) -> None:
    host = balancer.lab.backends[0].host
    addresses = [f"10.0.0.{number}" for number in range(100, 200)]
    host.ip(*(f"addr add {address}/24 dev eth0" for address in addresses))
    lines = (
        f'[[backends]]\naddress = "{address}"\nport = {lab.BACKEND_PORT}\n' for address in addresses
    )
    lab.replace(balancer.folder / "backends.toml", "\n".join(lines))
    try:
        balancer.start()
        wait_until(
            lambda: list(modes(balancer).values()).count("active") == 100, lab.LIMIT, "all checked"
        )
        wait_until(
            lambda: balancer.control.get("/status")["collection"], lab.LIMIT, "it has collected"
        )
        assert balancer.daemon is not None
        peak = resident(balancer.daemon.pid, "VmHWM")
        assert peak < 112, f"{peak:.0f} MiB: it is some 95"
    finally:
        host.ip(*(f"addr del {address}/24 dev eth0" for address in addresses))
