"""The plumbing of these tests, without LLB: plain forwarding through the host in the middle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter

import pytest

from llb_core.demo import lab
from llb_core.demo.network import NAMESPACES, Network, python, stop, wait_until

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
    command = python("load.py", backend.address, str(lab.BACKEND_PORT), "--rate", "500")
    load = made.client.start(*command, stdin=subprocess.PIPE)
    assert load.stdin is not None
    assert load.stdout is not None
    said = load.stdout
    counts: Counter[tuple[str, str, str]] = Counter()

    def read_until(phase: str, outcome: str, number: int) -> None:
        while sum(n for k, n in counts.items() if k[:2] == (phase, outcome)) < number:
            add(said.readline())

    def add(line: str) -> None:
        for count in json.loads(line)["counts"]:
            outcome = "answered" if "answered" in count else "failed"
            what = count.get("backend") or count["why"]
            counts[count["phase"], outcome, what] += count[outcome]

    load.stdin.write("up\n")
    load.stdin.flush()
    read_until("up", "answered", 100)
    load.stdin.write("down\n")
    load.stdin.flush()
    read_until("down", "answered", 20)
    backend.kill()
    read_until("down", "failed", 50)
    load.stdin.close()
    for line in said:
        add(line)
    assert load.wait(5) == 0
    assert {key for key in counts if key[0] == "up"} == {("up", "answered", "b1")}
    assert counts["down", "failed", "connection refused"] >= 40


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
    wait_until(lambda: not runs(server), 5, "the server has ended with its parent")
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
