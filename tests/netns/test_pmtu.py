"""ICMP and fragments through the balancer, on real links, routers and sockets.

Linux probes for the MTU of a path by no other way than ICMP here, so a transfer that ends proves
that the errors arrive, and the socket says what they said.
"""

from __future__ import annotations

import random
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from tests.netns import routed
from tests.netns.conftest import BOTH_FAMILIES
from tests.netns.routed import Routed, mtu_of
from tests.netns.test_traffic import transfer

pytestmark = [pytest.mark.netns, BOTH_FAMILIES]

NARROW = 1400
SIZE, CHUNK = 1_000_001, 50_000
_MSG_ERRQUEUE = 0x2000
_RECEIVE_ERRORS = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_HOPS = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, 16)}
_TIME_EXCEEDED = {4: 11, 6: 3}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Routed, lab.Balancer]]:
    """A routed lab with LLB running in it, for both families."""
    with Network() as network:
        lab.forget_leftovers()
        hosts = routed.build(network)
        hosts.lab.start_backends()
        balancer = lab.Balancer(hosts.lab, tmp_path_factory.mktemp("pmtu"))
        try:
            routed.configure(balancer)
            balancer.start(wait=False)
            wait_until(balancer.serves, lab.LIMIT, "the daemon answers")
            both = [each for family in (4, 6) for each in hosts.lab.of(family).backends]
            wait_until(lambda: all(map(balancer.is_active, both)), lab.LIMIT, "all are active")
            yield hosts, balancer
        finally:
            balancer.remove()
            print(balancer.last_words())


@pytest.fixture
def hosts(served: tuple[Routed, lab.Balancer]) -> Routed:
    """The lab with wide links."""
    served[0].widen()
    return served[0]


def verdict(balancer: lab.Balancer, name: str) -> int:
    """How often a packet had a verdict, in both families."""
    found: int = balancer.control.get("/status")["verdicts"].get(name, 0)
    return found


@pytest.mark.parametrize("towards", ["backend", "client"])
@pytest.mark.parametrize("link", ["the next one", "one beyond"])
def test_a_transfer_finds_the_mtu_of_a_narrow_link(
    hosts: Routed, served: tuple[Routed, lab.Balancer], family: int, link: str, towards: str
) -> None:
    balancer = served[1]
    name = "refuse_too_big" if link == "the next one" else "forward_error"
    before = verdict(balancer, name)
    payload = random.Random(1).randbytes(SIZE)
    vip, backend = (lab.ADDRESSES[family].vip, lab.ADDRESSES[family].backend(11))
    kind = socket.SOCK_STREAM
    with (
        hosts.backend.socket(kind, family) as listener,
        hosts.lab.client.socket(kind, family) as client,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((backend, routed.SINK_PORT))
        listener.listen()
        client.connect((vip, routed.SINK_PORT))
        server, _ = listener.accept()
        with server:
            server.settimeout(30)
            client.settimeout(30)
            # Only now, so that no segment size was agreed on that fits.
            narrow(hosts, link, towards)
            sender, receiver = (client, server) if towards == "backend" else (server, client)

            def knows() -> bool:
                """The balancer, too, hears of its links from time to time only."""
                sender.sendall(payload[:CHUNK])
                assert exactly(receiver, CHUNK) == payload[:CHUNK]
                return mtu_of(sender) == NARROW

            wait_until(knows, lab.LIMIT, "the sender knows the path's MTU")
            received = transfer(sender, receiver, payload)

    assert received == payload
    wait_until(lambda: verdict(balancer, name) > before, lab.LIMIT, f"{name} is counted")


def exactly(receiver: socket.socket, size: int) -> bytes:
    """Receive so many bytes."""
    data = b""
    while len(data) < size:
        data += receiver.recv(size - len(data))
    return data


def narrow(hosts: Routed, link: str, towards: str) -> None:
    """Make one link narrow, for what leaves by its near end; the other end takes what comes."""
    router, interface = {
        ("the next one", "backend"): (hosts.lab.lb, "eth1"),
        ("the next one", "client"): (hosts.lab.lb, "eth0"),
        ("one beyond", "backend"): (hosts.r2, "eth1"),
        ("one beyond", "client"): (hosts.r1, "eth0"),
    }[link, towards]
    router.ip(f"link set {interface} mtu {NARROW}")


@pytest.mark.parametrize("size", [1473, 8000, 60_000])
def test_large_datagrams_go_through_in_fragments_both_ways(
    hosts: Routed, family: int, size: int
) -> None:
    payload = random.Random(size).randbytes(size)
    with hosts.lab.client.socket(socket.SOCK_DGRAM, family) as client:
        client.connect((lab.ADDRESSES[family].vip, lab.UDP_PORT))
        for _ in range(20):
            client.send(payload)
            assert client.recv(65_536) == b"b1 " + payload


def test_an_unreachable_port_of_a_backend_is_refused_to_the_client(
    hosts: Routed, family: int
) -> None:
    with hosts.lab.client.socket(socket.SOCK_DGRAM, family) as client:
        client.connect((lab.ADDRESSES[family].vip, routed.CLOSED_PORT))
        for _ in range(3):
            client.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)


def test_every_hop_on_the_way_tells_of_itself(hosts: Routed, family: int) -> None:
    """As traceroute does it: behind the first router, every hop speaks as the VIP."""
    own = lab.ADDRESSES[family]
    told = [hop_of(hosts, family, hops) for hops in (1, 2, 3, 4)]

    assert told == [own.client(254), own.vip, own.vip, None]


def hop_of(hosts: Routed, family: int, hops: int) -> str | None:
    """Send a datagram that lives for so many hops; return who tells of its end, or None where the
    backend answers."""
    with hosts.lab.client.socket(socket.SOCK_DGRAM, family) as client:
        client.setsockopt(*_HOPS[family], hops)
        client.setsockopt(*_RECEIVE_ERRORS[family], 1)
        client.connect((lab.ADDRESSES[family].vip, lab.UDP_PORT))
        client.send(b"hello")
        events = select.poll()
        events.register(client, select.POLLIN)
        ((_, what),) = events.poll(30_000)
        if what & select.POLLIN:
            assert client.recv(100) == b"b1 hello"
            return None
        _, control, _, _ = client.recvmsg(100, 500, _MSG_ERRQUEUE)
    error = next(data for level, kind, data in control if (level, kind) == _RECEIVE_ERRORS[family])
    assert struct.unpack_from("=IBB", error)[2] == _TIME_EXCEEDED[family]
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, error[20:24])
    return socket.inet_ntop(socket.AF_INET6, error[24:40])


def test_a_sender_that_allows_fragments_makes_them_itself_once_it_was_told(
    hosts: Routed, family: int
) -> None:
    """Over IPv4 without "don't fragment", which the balancer can't do for it; over IPv6 always."""
    narrow(hosts, "the next one", "backend")
    hosts.r2.ip(f"link set eth0 mtu {NARROW}")  # the answer is as large
    payload = bytes(NARROW)
    with hosts.lab.client.socket(socket.SOCK_DGRAM, family) as client:
        if family == 4:
            client.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
        client.settimeout(0.2)
        client.connect((lab.ADDRESSES[family].vip, lab.UDP_PORT))

        def is_answered() -> bool:
            try:
                client.send(payload)
                return client.recv(65_536) == b"b1 " + payload
            except (TimeoutError, OSError):
                return False

        wait_until(is_answered, lab.LIMIT, "a datagram in fragments is answered")


def test_all_this_outlives_the_daemon(
    hosts: Routed, served: tuple[Routed, lab.Balancer], family: int
) -> None:
    """What the classifier jumps to is there without whoever loaded it, and is replaced with it."""
    balancer = served[1]
    before = jumps(balancer, family)
    balancer.kill()

    test_an_unreachable_port_of_a_backend_is_refused_to_the_client(hosts, family)
    test_large_datagrams_go_through_in_fragments_both_ways(hosts, family, 8000)
    test_every_hop_on_the_way_tells_of_itself(hosts, family)
    assert jumps(balancer, family) == before

    balancer.start(wait=False)
    wait_until(balancer.serves, lab.LIMIT, "the daemon answers")
    wait_until(
        lambda: len(now := jumps(balancer, family)) == 1 and now != before,
        lab.LIMIT,
        "one is in place",
    )
    test_every_hop_on_the_way_tells_of_itself(hosts, family)


def jumps(balancer: lab.Balancer, family: int) -> list[str]:
    """The arrays of programs that are pinned for a family."""
    folder = lab.PINS / balancer.name
    return sorted(path.name for path in folder.glob(f"*/ipv{family}/jumps_*"))
