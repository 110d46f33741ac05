"""The plumbing of these tests, without LLB: plain forwarding through the host in the middle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from llb_core.demo import lab
from llb_core.demo.network import NAMESPACES, Network, stop, wait_until
from llb_core.demo.traffic import Tally, Traffic

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("one_arm", [False, True], ids=["two-arm", "one-arm"])
def test_forwards_plainly_to_each_backend_and_back(network: Network, one_arm: bool) -> None:
    made = lab.build(network, clients=2, backends=2, one_arm=one_arm)
    made.lb.sysctl("net.ipv4.ip_forward=1")
    made.start_backends()
    for client in made.clients:
        for backend in made.backends:
            url = f"http://{backend.address}:{lab.BACKEND_PORT}/"
            assert client.run("curl", "-sS", url).stdout == f"{backend.name}\n"


def test_a_datagram_comes_back_with_the_backends_name(network: Network) -> None:
    made = lab.build(network, backends=1)
    made.lb.sysctl("net.ipv4.ip_forward=1")
    made.start_backends()
    with made.client.socket(socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", (made.backends[0].address, lab.UDP_PORT))
        assert sock.recv(100) == b"b1 hello"


def test_a_killed_backend_refuses_and_one_started_again_answers(network: Network) -> None:
    made = lab.build(network, backends=1)
    made.lb.sysctl("net.ipv4.ip_forward=1")
    backend = made.backends[0]
    curl = ("curl", "-sS", f"http://{backend.address}:{lab.BACKEND_PORT}/")
    backend.start()
    backend.kill()
    assert made.client.run(*curl, check=False).returncode == 7  # could not connect
    backend.start()
    assert made.client.run(*curl).stdout == "b1\n"


def test_load_counts_each_request_once_under_the_phase_it_began_in(network: Network) -> None:
    made = lab.build(network, backends=1)
    made.lb.sysctl("net.ipv4.ip_forward=1")
    backend = made.backends[0]
    backend.start()
    with Traffic(made.clients, backend.address, lab.BACKEND_PORT, rate=500) as traffic:
        traffic.phase("up")
        wait_until(lambda: answered(traffic, "up") > 100, lab.LIMIT, "100 requests are answered")
        traffic.phase("down")
        wait_until(
            lambda: answered(traffic, "down") > 50, lab.LIMIT, "what was begun before is answered"
        )
        backend.kill()
        wait_until(lambda: failed(traffic, "down") > 50, lab.LIMIT, "50 requests failed")
        tallies = traffic.finish()
    assert set(tallies["up"].answered) == {"b1"}
    assert not tallies["up"].failed
    assert tallies["down"].failed["connection refused"] > 40


def answered(traffic: Traffic, phase: str) -> int:
    return traffic.tallies().get(phase, Tally()).answered.total()


def failed(traffic: Traffic, phase: str) -> int:
    return traffic.tallies().get(phase, Tally()).failed.total()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_is_ended_from_outside(how: signal.Signals) -> None:
    program = """if True:
        import signal, sys, threading
        from llb_core.demo import lab
        from llb_core.demo.network import Network
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        with Network() as network:
            made = lab.build(network, backends=1)
            made.start_backends()
            print(made.backends[0].server.pid, flush=True)
            threading.Event().wait()
    """
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    assert run.stdout is not None
    server = int(run.stdout.readline())
    assert names_of(run.pid)
    stop(run, how)
    wait_until(lambda: not runs(server), lab.LIMIT, "the server has ended with its parent")
    if how is signal.SIGKILL:  # then it is the next run that cleans up
        with Network():
            pass
    assert names_of(run.pid) == []


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def names_of(pid: int) -> list[str]:
    return [path.name for path in NAMESPACES.glob(f"llb-{pid}-*")]
