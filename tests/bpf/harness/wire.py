"""The classifier hung on a real interface, for what can't be said of a packet of a test run:

headers that lie outside the linear part, and checksums that are only partly computed. Frames are
handed to the kernel with a `struct virtio_net_hdr` before them, and come back with one.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from llb_core.datapath import attach, bpf_syscall
from tests.bpf.harness.family import at_hand
from tests.bpf.harness.rig import ETHERNET, ETHERTYPE, Rig
from tests.bpf.harness.world import PRIVATE, PRIVATE_PEER, PUBLIC, PUBLIC_PEER

JUMBO = 9000
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_VNET_HDR = 263, 8, 15
_VLAN_VALID = 0x10  # TP_STATUS_VLAN_VALID, packet(7)
_HEADER = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM = 1
_GSO_TCP = {4: 1, 6: 4}
_SECONDS = 5.0
_ROOM = 65_536


@dataclass(frozen=True, slots=True)
class Offloads:
    """What a sender leaves to the device: the checksum from `start` on, at `offset` behind that,
    and cutting into segments. `linear` is how many bytes of the frame are to lie in one piece."""

    linear: int = 0
    checksum_start: int = 0
    checksum_offset: int = 0
    gso_size: int = 0
    is_tagged: bool = False
    """Whether it came with a tag of a VLAN or priority, which is not in the frame any more."""

    @property
    def has_partial_checksum(self) -> bool:
        """Whether the checksum holds no more than the pseudo-header's sum."""
        return self.checksum_start != 0


class Wire:
    """Both ends: what a client's side sends, and what comes out towards the backends."""

    def __init__(self, client: socket.socket, backend: socket.socket) -> None:
        self._client, self._backend = client, backend

    def send(self, frame: bytes, offloads: Offloads) -> None:
        """Send a frame into the public interface."""
        header = _HEADER.pack(
            _NEEDS_CHECKSUM if offloads.has_partial_checksum else 0,
            _GSO_TCP[at_hand()] if offloads.gso_size else 0,
            offloads.linear,
            offloads.gso_size,
            offloads.checksum_start,
            offloads.checksum_offset,
        )
        self._client.send(header + frame)

    def receive(self) -> tuple[bytes, Offloads]:
        """Wait for an IP packet that goes out to a backend, and return it without Ethernet."""
        return _receive(self._backend)

    def receive_at_client(self) -> tuple[bytes, Offloads]:
        """Wait for one that goes out to a client."""
        return _receive(self._client)


def _receive(end: socket.socket) -> tuple[bytes, Offloads]:
    data, [(_, _, beside)], _, _ = end.recvmsg(_ROOM, 64)
    (status,) = struct.unpack_from("=I", beside)
    flags, _, _, gso_size, start, offset = _HEADER.unpack_from(data)
    is_partial = bool(flags & _NEEDS_CHECKSUM)
    offloads = Offloads(
        checksum_start=start if is_partial else 0,
        checksum_offset=offset if is_partial else 0,
        gso_size=gso_size,
        is_tagged=bool(status & _VLAN_VALID),
    )
    return data[_HEADER.size + ETHERNET :], offloads


@contextmanager
def on_clsact(rig: Rig) -> Iterator[None]:
    """Hang the classifier on the public interface of the namespace by a filter."""
    with attach.netlink() as ip:
        attach.ensure_clsact(ip, rig.public_index)
        try:
            program = rig.datapath.program_fds["classify"]
            attach.attach(ip, rig.public_index, program, rig.settings.name, rig.family)
            yield
        finally:
            attach.remove_clsact(ip, rig.public_index)


@contextmanager
def on_tcx(rig: Rig) -> Iterator[None]:
    """Hang it there by a link."""
    program = rig.datapath.program_fds["classify"]
    link = bpf_syscall.link_create(program, rig.public_index, bpf_syscall.TCX_INGRESS)
    try:
        yield
    finally:
        os.close(link)


@contextmanager
def attached(
    rig: Rig, hook: Callable[[Rig], AbstractContextManager[None]] = on_clsact
) -> Iterator[Wire]:
    """Hang the classifier on the public interface; jumbo frames are let by."""
    with (
        _jumbo(),
        _packets(PUBLIC_PEER) as client,
        hook(rig),
        _packets(PRIVATE_PEER) as backend,
    ):
        yield Wire(client, backend)


@contextmanager
def _jumbo() -> Iterator[None]:
    interfaces = (PUBLIC.name, PUBLIC_PEER, PRIVATE.name, PRIVATE_PEER)
    try:
        for interface in interfaces:
            _set_mtu(interface, JUMBO)
        yield
    finally:
        for interface in interfaces:
            _set_mtu(interface, 1500)


def _set_mtu(interface: str, mtu: int) -> None:
    subprocess.run(["ip", "link", "set", interface, "mtu", str(mtu)], check=True)


@contextmanager
def _packets(interface: str) -> Iterator[socket.socket]:
    kind = ETHERTYPE[at_hand()]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as opened:
        opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        opened.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        opened.bind((interface, kind))
        opened.settimeout(_SECONDS)
        yield opened
