"""What backends send to the host itself: its sockets work, what is nobody's is dropped."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from llb_core.datapath.layout import Verdict
from tests.bpf.harness import talk
from tests.bpf.harness.family import at_hand
from tests.bpf.harness.packets import from_backend, tcp, udp
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import BACKEND, PRIVATE, PRIVATE_ADDRESS, SNAT, address

pytestmark = pytest.mark.root

NODE_EXPORTER = 9100
KINDS = {4: socket.AF_INET, 6: socket.AF_INET6}


def listen(host: str = "", port: int = NODE_EXPORTER) -> socket.socket:
    """Return a TCP server of the host, of the family at hand."""
    return socket.create_server((host, port), family=KINDS[at_hand()])


@pytest.fixture
def listener(rig: Rig) -> Iterator[socket.socket]:
    """A TCP server of the host on every address, inside the namespace."""
    with closing(listen()) as server:
        yield server


@pytest.fixture
def bound(rig: Rig) -> Iterator[socket.socket]:
    """A UDP server of the host on every address."""
    with closing(socket.socket(KINDS[rig.family], socket.SOCK_DGRAM)) as server:
        server.bind(("", NODE_EXPORTER))
        yield server


@pytest.mark.parametrize("flags", ["S", "A", "FA", "R"])
def test_segment_to_a_listener_passes(rig: Rig, listener: socket.socket, flags: str) -> None:
    packet = tcp(BACKEND, SNAT, 44000, NODE_EXPORTER, flags)

    assert rig.send(packet, PRIVATE).verdict is Verdict.PASS_HOST_SOCKET


def test_datagram_to_a_socket_passes(rig: Rig, bound: socket.socket) -> None:
    packet = udp(BACKEND, SNAT, 44000, NODE_EXPORTER)

    assert rig.send(packet, PRIVATE).verdict is Verdict.PASS_HOST_SOCKET


def test_sockets_of_the_other_protocol_do_not_count(rig: Rig, listener: socket.socket) -> None:
    packet = udp(BACKEND, SNAT, 44000, NODE_EXPORTER)

    assert rig.send(packet, PRIVATE).verdict is Verdict.DROP_UNKNOWN_ANSWER


def test_socket_on_another_address_does_not_count(rig: Rig) -> None:
    packet = tcp(BACKEND, SNAT, 44000, NODE_EXPORTER, "S")

    with closing(listen(str(address(PRIVATE_ADDRESS)))):
        assert rig.send(packet, PRIVATE).verdict is Verdict.DROP_UNKNOWN_ANSWER


def test_socket_that_is_gone_does_not_count(rig: Rig) -> None:
    packet = tcp(BACKEND, SNAT, 44000, NODE_EXPORTER, "S")
    with closing(listen()):
        assert rig.send(packet, PRIVATE).verdict is Verdict.PASS_HOST_SOCKET

    assert rig.send(packet, PRIVATE).verdict is Verdict.DROP_UNKNOWN_ANSWER


def test_connection_comes_before_a_socket_on_its_port(rig: Rig) -> None:
    talk.established(rig)

    with closing(listen(port=5000)):
        outcome = rig.send(from_backend("A"), PRIVATE)

    assert outcome.verdict is Verdict.FORWARD_TO_CLIENT


def test_ports_beyond_the_range_are_the_host_s_without_a_question(rig: Rig) -> None:
    rig.configure(snat_ports=(2000, 2003))

    for port in (1999, 2004):
        assert rig.send(tcp(BACKEND, SNAT, 80, port, "A"), PRIVATE).verdict is Verdict.PASS_NOT_OURS
    for port in (2000, 2003):
        outcome = rig.send(tcp(BACKEND, SNAT, 80, port, "A"), PRIVATE)
        assert outcome.verdict is Verdict.DROP_UNKNOWN_ANSWER
