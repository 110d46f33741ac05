"""The TCX hook: found again, replaced in place, beside others' programs, and from clsact to it."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llb_core.datapath import Datapath, attach, bpf_syscall, pins, tcx
from llb_core.demo.network import wait_until
from llb_core.map_sync import MapSync
from llb_core.model import (
    BackendMode,
    Desired,
    DesiredBackend,
    DesiredService,
    Endpoint,
    ServiceKey,
    Timeouts,
    Transport,
)
from llb_core.planning.plan import make_plan
from tests.datapath.conftest import NAME, Host, settings

VIP = ipaddress.ip_address("203.0.113.10")
BACKEND = ipaddress.ip_address("10.0.0.2")
PORT = 9000
_RCVBUFFORCE = 33


def linked(family: int = 4) -> list[str]:
    return sorted(path.name for path in pins.pin_folder(NAME, family).glob("link_*"))


def filters() -> list[int]:
    with attach.netlink() as ip:
        return attach.attached_indices(ip, NAME)


def index(interface: str) -> int:
    with attach.netlink() as ip:
        return attach.interface_index(ip, interface)


def test_links_are_found_again_and_updated_in_place(host: Host, datapath: Datapath) -> None:
    datapath.attach()
    names = linked()
    assert names == sorted(f"link_{index(each)}" for each in ("public", "private"))
    assert filters() == []
    path = pins.pin_folder(NAME) / names[0]
    before = path.stat().st_ino

    Datapath(settings(), datapath.families).attach()  # as the next daemon would

    assert linked() == names
    assert path.stat().st_ino == before, "the same link: no moment without it"
    assert "removed the classifier from public" in Datapath.detach(NAME)
    assert linked() == []


def test_a_link_of_an_earlier_layout_goes_on(host: Host, datapath: Datapath) -> None:
    """Two links would have two programs judge each packet, the earlier one first."""
    datapath.attach()
    earlier = pins.pin_root(NAME) / "0" / "ipv4"
    earlier.mkdir(parents=True)
    inodes = {}
    for name in linked():
        path = (pins.pin_folder(NAME) / name).rename(earlier / name)
        inodes[name] = path.stat().st_ino

    datapath.attach()

    assert {name: (pins.pin_folder(NAME) / name).stat().st_ino for name in linked()} == inodes
    assert inodes
    assert list(earlier.iterdir()) == []


def test_is_taken_from_an_interface_that_is_not_named_any_more(
    host: Host, datapath: Datapath
) -> None:
    datapath.attach()
    datapath.settings = settings(public_interfaces=("private",))

    datapath.attach()

    assert linked() == [f"link_{index('private')}"]


def test_a_link_of_an_interface_that_is_gone_is_replaced(host: Host, datapath: Datapath) -> None:
    datapath.attach()
    stale = f"link_{index('public')}"
    host.peer.ip("link del client")
    host.namespace.ip(
        "link add public type veth peer name gone",
        "link set public up",
        "addr add 198.51.100.1/24 dev public",
    )
    path = pins.pin_folder(NAME) / f"link_{index('public')}"
    if path.name != stale:  # The number of another interface, which has it now.
        (pins.pin_folder(NAME) / stale).rename(path)

    datapath.attach()

    assert linked() == sorted(f"link_{index(each)}" for each in ("public", "private"))
    link = bpf_syscall.obj_get(path)
    try:
        bpf_syscall.link_update(link, datapath.families[4].program_fds["classify"])
    finally:
        os.close(link)


def test_programs_of_others_stay(host: Host, datapath: Datapath) -> None:
    other = bpf_syscall.link_create(
        datapath.families[4].program_fds["read_clocks"], index("public"), bpf_syscall.TCX_INGRESS
    )
    try:
        datapath.attach()
        Datapath.detach(NAME)
        # It still hangs: a link that does not can't be updated.
        bpf_syscall.link_update(other, datapath.families[4].program_fds["classify"])
    finally:
        os.close(other)


def test_a_kernel_without_tcx_gets_filters(
    host: Host, datapath: Datapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(bpf_syscall, "link_create", refuse)

    datapath.attach()

    assert linked() == []
    assert filters() == sorted(index(each) for each in ("public", "private"))


def test_nothing_gets_past_from_clsact_to_tcx_and_nothing_is_handled_twice(
    host: Host, datapath: Datapath, clsact: pytest.MonkeyPatch
) -> None:
    """Each datagram of a flood is counted once, and reaches the backend once."""
    serve(host, datapath)
    folder = pins.pin_folder(NAME)
    datapath.attach()
    assert linked() == []
    with received(host) as (past, at_backend), flood(host) as sent:
        for _ in range(10):
            wait_for_more(sent)
            clsact.undo()
            datapath.attach()
            assert filters() == []
            wait_for_more(sent)
            datapath.attach()
            wait_for_more(sent)
            with attach.netlink() as ip:  # And back, for the next round.
                for each in ("public", "private"):
                    program = datapath.families[4].program_fds["classify"]
                    attach.ensure_clsact(ip, index(each))
                    attach.attach(ip, index(each), program, NAME)
            tcx.detach(folder)
    total = sent[0]
    wait_until(lambda: len(at_backend) >= total, 30, "all datagrams have arrived")
    assert at_backend == list(range(total))
    assert past == []
    verdicts = datapath.families[4].counters().verdicts
    assert verdicts["forward_new"] + verdicts["forward_to_backend"] == total


def test_nothing_gets_past_while_the_pins_are_gone(host: Host, datapath: Datapath) -> None:
    serve(host, datapath)
    datapath.attach()
    names = linked()
    assert names
    with received(host) as (past, at_backend), flood(host) as sent:
        for _ in range(3):
            wait_for_more(sent)
            for path in pins.pin_folder(NAME).glob("link_*"):
                path.unlink()
            wait_for_more(sent)
            datapath.repair([VIP])
            assert linked() == names
    total = sent[0]
    wait_until(lambda: len(at_backend) >= total, 30, "all datagrams have arrived")
    assert at_backend == list(range(total))
    assert past == []


def serve(host: Host, datapath: Datapath) -> None:
    """Serve a VIP over UDP, with the backend at the other end of the private cable."""
    host.peer.ip(
        "addr add 198.51.100.2/24 dev client",
        "addr add 10.0.0.2/24 dev backend",
        "route add 203.0.113.10/32 via 198.51.100.1",
    )
    sync = MapSync(datapath.families[4])
    sync.put_settings(settings(), datapath.private_index())
    datapath.prepare_host([VIP])
    key = ServiceKey(Endpoint(VIP, PORT), Transport.UDP)
    route = datapath.routes([BACKEND])[BACKEND]
    backend = DesiredBackend(Endpoint(BACKEND, PORT), 1, BackendMode.ACTIVE, route)
    wanted = Desired({key: DesiredService("echo", key, Timeouts(), (backend,))})
    sync.apply(make_plan(wanted, sync.installed()))


@contextmanager
def received(host: Host) -> Iterator[tuple[list[int], list[int]]]:
    """The numbers of the datagrams that got past the classifier, and of those at the backend."""
    ends = threading.Event()
    lists: tuple[list[int], list[int]] = ([], [])
    places = ((host.namespace, str(VIP)), (host.peer, str(BACKEND)))
    sockets = [namespace.socket(socket.SOCK_DGRAM) for namespace, _ in places]

    def read(sock: socket.socket, numbers: list[int]) -> None:
        while True:
            try:
                numbers.append(int(sock.recv(100)))
            except TimeoutError:
                if ends.is_set():
                    return

    threads = []
    for sock, (_, address), numbers in zip(sockets, places, lists, strict=True):
        sock.settimeout(0.2)
        # Room for all that is sent while the reader waits for a CPU.
        sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 1 << 26)
        sock.bind((address, PORT))
        threads.append(threading.Thread(target=read, args=(sock, numbers)))
        threads[-1].start()
    try:
        yield lists
    finally:
        ends.set()
        for thread in threads:
            thread.join()
        for sock in sockets:
            sock.close()


@contextmanager
def flood(host: Host) -> Iterator[list[int]]:
    """Send numbered datagrams to the VIP; the list holds how many were sent."""
    ends = threading.Event()
    sent = [0]
    sock = host.peer.socket(socket.SOCK_DGRAM)
    sock.connect((str(VIP), PORT))

    def send() -> None:
        while not ends.is_set():
            sock.send(str(sent[0]).encode())
            sent[0] += 1
            if sent[0] % 10 == 0:
                time.sleep(0.001)  # Slowly enough that no queue overflows.

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        ends.set()
        thread.join()
        sock.close()


def wait_for_more(sent: list[int]) -> None:
    then = sent[0] + 100
    wait_until(lambda: sent[0] > then, 30, "more is sent")
