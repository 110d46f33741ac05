"""The real program on real maps, run on one packet at a time (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import dataclasses
import errno
import functools
import itertools
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from llb_core.config import LoadBalancerConfig
from llb_core.datapath import Datapath, bpf_syscall, bpffs, layout, pins
from llb_core.datapath.bpf_map import MapReader, MapWriter
from llb_core.datapath.layout import MAX_BACKENDS, Verdict
from llb_core.map_sync import MapSync
from llb_core.model import (
    Address,
    Desired,
    DesiredService,
    Endpoint,
    InstalledBackend,
    Scheduler,
    ServiceKey,
)
from llb_core.planning.changes import Change, Plan, PutBackend
from llb_core.planning.maglev import Owners
from llb_core.planning.plan import make_plan
from llb_core.planning.turns import fill_table
from tests.bpf.harness import world
from tests.bpf.harness.family import at_hand, name_of
from tests.bpf.harness.loads import LoadTables
from tests.bpf.harness.packets import parsed
from tests.bpf.harness.tables import Flow, Half, NatTable, OpeningRing, pairs_of
from tests.bpf.harness.tags import untagged
from tests.bpf.harness.world import PRIVATE, PUBLIC, Interface

PREFIX = "test-bpf-"
ETHERNET = 14
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
EVERY_SLOT = frozenset(range(MAX_BACKENDS))
PEER_MAC = "02:00:00:00:00:ff"

_numbers = itertools.count()
_PASS, _SHOT, _REDIRECT = -1, 2, 7
_SK_BUFF_BYTES = 192
_M = 0xFFFFFFFF
_IFINDEX_AT, _GSO_SIZE_AT = 40, 176

_ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a frame, and the frame as it came out."""

    verdict: Verdict
    frame: bytes

    @property
    def packet(self) -> Packet:
        """The IP packet."""
        return parsed(self.frame[ETHERNET:])

    @property
    def src(self) -> str:
        """Whose source address it bears, by its name in `world`."""
        return name_of(self._address(0))

    @property
    def dst(self) -> str:
        """Whose destination address it bears, by its name in `world`."""
        return name_of(self._address(1))

    def _address(self, number: int) -> str:
        """Read an address without taking the whole packet apart, which takes long."""
        kind, size, at = (socket.AF_INET, 4, 12) if at_hand() == 4 else (socket.AF_INET6, 16, 8)
        start = ETHERNET + at + number * size
        return socket.inet_ntop(kind, self.frame[start : start + size])


class Counters:
    """An array of counters a CPU, read after every packet: into the same room each time."""

    def __init__(self, reader: MapReader) -> None:
        self._fd, self._count = reader.fd, reader.spec.entries
        self._keys = np.zeros(self._count, dtype=reader.spec.key)
        self._values = reader.value_room(self._count)
        self._token = np.zeros(1, dtype=np.uint32)

    def read(self) -> list[int]:
        """Return each counter's sum over the CPUs."""
        places = (each.ctypes.data for each in (self._keys, self._values))
        count, error = bpf_syscall.map_batch(
            bpf_syscall.MAP_LOOKUP_BATCH, self._fd, *places, self._count, 0, self._token.ctypes.data
        )
        assert (count, error) in ((self._count, 0), (self._count, errno.ENOENT))
        found: list[int] = self._values.sum(axis=1).tolist()
        return found


class Rig:
    """One balancer's maps and programs of the address family at hand, inside a `Namespace`."""

    def __init__(self, max_connections: int) -> None:
        self.family = at_hand()
        self.records = layout.records(self.family)
        name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self.settings = world.settings(name, max_connections)
        kernel = Datapath.open(self.settings, [self.family])
        self.datapath = kernel.families[self.family]
        self.sync = MapSync(self.datapath)
        self.loads = LoadTables(self.datapath.maps, self.family, lambda: self.sync.installed())
        self.dnat = NatTable(self.datapath.maps["dnat_table"], self.records)
        self.snat = NatTable(self.datapath.maps["snat_table"], self.records)
        self.ring = OpeningRing(self.datapath.maps)
        self.refusals = MapWriter.of(self.datapath.maps["refusal_buckets"])
        self.fragments = MapWriter.of(self.datapath.maps["fragments"])
        self._counters = Counters(self.datapath.maps["verdicts"])
        self.private_index = kernel.private_index()
        self._services: tuple[DesiredService, ...] = ()
        self.public_index = socket.if_nametoindex(PUBLIC.name)

    def close(self) -> None:
        """Give everything back, pins included."""
        self.datapath.close()
        pins.remove_pins(self.settings.name)

    def reset(self) -> None:
        """Go back to no connections, and to the settings and services of `world`."""
        self.forget_connections()
        self.sync.put_host_ports(())
        self.forget_fragments()
        self.allow_refusals()
        self.configure()
        self.install(*world.services(self.private_index))

    def forget_connections(self) -> None:
        """Empty the tables, and count nothing for anybody."""
        self.dnat.clear()
        self.snat.clear()
        self.loads.clear()

    def configure(self, *, private: Interface = PRIVATE, **changes: Any) -> LoadBalancerConfig:
        """Put the settings of `world`, but for these changes."""
        settings = dataclasses.replace(self.settings, **changes)
        self.sync.put_settings(settings, self.index(private))
        return settings

    def install(self, *services: DesiredService) -> None:
        """Plan for these services and no others, and carry plans out until nothing is left to do;
        slots that no connection uses are free then."""
        if services == self._services:
            return
        desired = Desired({service.key: service for service in services})
        idle = EVERY_SLOT - {half.backend for half in self.dnat.halves().values()}
        while plan := self._plan(desired, idle):
            self.sync.apply(plan)
        self._services = services

    def _plan(self, desired: Desired, idle_slots: frozenset[int]) -> Plan:
        return make_plan(
            desired,
            self.sync.installed(),
            idle_slots=idle_slots,
            build=_build,
            clock=self.datapath.clock(),
        )

    def backend(self, host: str, port: int) -> InstalledBackend:
        """Return an installed backend."""
        endpoint = Endpoint(world.address(host), port)
        backends = self.sync.installed().backends.values()
        return next(each for each in backends if each.endpoint == endpoint)

    def put_backend(self, host: str, port: int, **changes: Any) -> None:
        """Write a backend's record alone, as a plan cut off after this line would have."""
        self.apply(PutBackend(dataclasses.replace(self.backend(host, port), **changes)))

    def apply(self, *changes: Change) -> None:
        """Carry out changes that a whole plan would have more of."""
        self.sync.apply(Plan(changes))
        self._services = ()

    def service_slot(self, name: str) -> int:
        """Return an installed service's slot."""
        services = self.sync.installed().services.values()
        return next(service.slot for service in services if service.name == name)

    def keep_only(self, port: int) -> None:
        """Forget all connections but those of a client's port."""
        for flow, (half, _) in self.pairs().items():
            if flow.sport != port:
                self.dnat.remove(flow)
                self.snat.remove(half.becomes.reverse)

    def index(self, interface: Interface) -> int:
        """Return the kernel's number of an interface."""
        return self.private_index if interface == PRIVATE else self.public_index

    def send(
        self,
        packet: Packet | bytes,
        arrives_on: Interface = PUBLIC,
        *,
        gso_size: int = 0,
        fill_buckets: bool = True,
    ) -> Outcome:
        """Run the classifier on an IP packet, or on a frame, and hold it to what always holds:
        one verdict counted, the action that belongs to it, nothing written but to forward or to
        refuse. Unless told otherwise, it may refuse as often as it wants."""
        frame = to_frame(packet, arrives_on)
        read = as_read(frame, arrives_on)
        before = self.verdicts()
        run = self._run(frame, arrives_on, gso_size=gso_size)
        after = self.verdicts()
        counted = [each for each in Verdict for _ in range(after[each] - before[each])]
        if not is_counted(read):
            # Of another protocol, which the other family's program may be there to count.
            counted.append(Verdict.PASS_UNPARSED)
        assert len(counted) == 1, f"counted as {counted}"
        verdict = counted[0]
        assert run.retval == action_of(verdict), f"{verdict.name} gives action {run.retval}"
        if run.retval != _REDIRECT:
            assert run.data == (read or frame), f"{verdict.name} wrote into the packet"
        if fill_buckets and verdict.name.startswith("REFUSE"):
            self.allow_refusals()
        return Outcome(verdict, run.data)

    def flood(self, packet: Packet, count: int) -> None:
        """Run the classifier so often on a packet that it does not forward."""
        frame = to_frame(packet, PUBLIC)
        assert self._run(frame, PUBLIC, repeat=count).data == frame

    def _run(
        self, frame: bytes, arrives_on: Interface, *, gso_size: int = 0, repeat: int = 1
    ) -> bpf_syscall.TestRun:
        context = self.context(arrives_on, gso_size)
        return bpf_syscall.prog_test_run(
            self.datapath.program_fds["classify"], frame, context=context, repeat=repeat
        )

    def context(self, arrives_on: Interface, gso_size: int = 0) -> bytes:
        """Return the `struct __sk_buff` of a packet that comes by an interface."""
        made = bytearray(_SK_BUFF_BYTES)
        struct.pack_into("=I", made, _IFINDEX_AT, self.index(arrives_on))
        struct.pack_into("=I", made, _GSO_SIZE_AT, gso_size)
        return bytes(made)

    def allow_refusals(self) -> None:
        """Fill every bucket of tokens for ICMP errors: one that was never used is full."""
        count = self.refusals.spec.entries
        keys = np.arange(count, dtype=self.refusals.spec.key)
        self.refusals.update_batch(keys, self.refusals.value_room(count))

    def forget_fragments(self) -> None:
        """Forget every first fragment that has come by."""
        for key in self.fragments.read_all()[0]:
            self.fragments.delete(key)

    def first_fragments(self) -> dict[tuple[Address, Address, int, int], int]:
        """Return when the first fragment of each datagram came by."""
        keys, records = self.fragments.read_all()
        unpack = self.records.unpack
        number = socket.ntohs if self.family == 4 else socket.ntohl
        return {
            (unpack(key["src"]), unpack(key["dst"]), int(key["proto"]), number(int(key["id"]))): at
            for key, at in zip(keys, records["seen"].tolist(), strict=True)
        }

    def pass_time(self, seconds: float) -> None:
        """Let time go by for every connection, and for first fragments that have come by."""
        ticks = round(seconds * self.datapath.ticks_per_second)
        self.dnat.age(ticks)
        self.snat.age(ticks)
        self.loads.age(ticks)
        self.sync.apply(
            Plan(
                tuple(
                    PutBackend(dataclasses.replace(each, started=(each.started - ticks) & _M or 1))
                    for each in self.sync.installed().backends.values()
                    if each.started
                )
            )
        )
        keys, records = self.fragments.read_all()
        records["seen"] -= np.uint32(ticks)
        if len(keys):
            self.fragments.update_batch(keys, records)

    def pairs(self) -> dict[Flow, tuple[Half, Half]]:
        """Return both halves of each connection by the client's tuple, checked by `pairs_of`."""
        return pairs_of(self.dnat, self.snat)

    def pair(self) -> tuple[Half, Half]:
        """Return both halves of the only connection, DNAT first."""
        (pair,) = self.pairs().values()
        return pair

    def verdicts(self) -> list[int]:
        """Return how many packets had each verdict."""
        return self._counters.read()


def to_frame(packet: Packet | bytes, arrives_on: Interface) -> bytes:
    """Return the frame in which an IP packet of the family at hand comes to an interface; frames
    stay as they are."""
    if isinstance(packet, bytes):
        return packet
    if not isinstance(packet, Ether):
        packet = Ether(src=PEER_MAC, dst=arrives_on.mac, type=ETHERTYPE[at_hand()]) / packet
    return bytes(packet)


def as_read(frame: bytes, arrives_on: Interface) -> bytes | None:
    """Return a frame as the classifier of the family at hand reads it: without tags of VLAN 0."""
    return untagged(frame, mac_of(arrives_on), _ETHERTYPES[at_hand()])


def is_counted(read: bytes | None) -> bool:
    """Say whether what `as_read` returns is for the classifier of the family at hand to count."""
    return read is None or read[12:14] == _ETHERTYPES[at_hand()]


@functools.cache
def mac_of(interface: Interface) -> bytes:
    """Return an interface's MAC address as it stands in a frame."""
    return bytes.fromhex(interface.mac.replace(":", ""))


def remove_leftovers() -> None:
    """Unpin what processes that were killed have left behind."""
    folder = bpffs.BPFFS / "llb"
    if not folder.is_dir():
        return
    for path in folder.glob(f"{PREFIX}*"):
        owner = path.name.removeprefix(PREFIX).split("-")[0]
        if not Path(f"/proc/{owner}").exists():
            pins.remove_pins(path.name)


def _build(
    _: ServiceKey, backends: Sequence[tuple[Endpoint, int]], size: int, scheduler: Scheduler
) -> Owners:
    """Fill a table, or remember one."""
    return _remembered_table(tuple(backends), size, scheduler)


@functools.cache
def _remembered_table(
    backends: tuple[tuple[Endpoint, int], ...], size: int, scheduler: Scheduler
) -> Owners:
    return fill_table(backends, size, scheduler)


def action_of(verdict: Verdict) -> int:
    if verdict.name.startswith("PASS"):
        return _PASS
    return _REDIRECT if verdict.name.startswith(("FORWARD", "REFUSE")) else _SHOT
