"""Drive the model and the classifier with the same packets, and hold the one to the other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from scapy.packet import Packet

from llb_core.datapath.layout import ASSURED, Verdict, opening_places
from llb_core.model import Address
from tests.bpf.harness import world
from tests.bpf.harness.rig import (
    ETHERNET,
    Outcome,
    Rig,
    action_of,
    as_read,
    is_counted,
    mac_of,
    to_frame,
)
from tests.bpf.harness.runner import Runner
from tests.bpf.harness.tables import Flow, Half
from tests.bpf.harness.world import PRIVATE, PUBLIC, Interface
from tests.bpf.model import Model
from tests.bpf.model_connection import Connection, Way
from tests.bpf.model_icmp import blank_error, error_faults, quoted
from tests.bpf.model_packet import blank, packet_faults, parse

OURS = (world.VIP, world.PUBLIC_ADDRESS, world.PRIVATE_ADDRESS)
FEW_REFUSALS = 25
"""Less than a bucket of tokens for ICMP errors holds: the model's are never empty."""
BROADCAST = "255.255.255.255"
_M = 0xFFFFFFFF
_CLOCKS = bytes(64)
"""What the program that reads the clocks writes them into."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that comes by an interface."""

    frame: bytes
    by: Interface
    gso_size: int


class Agreement:
    """Both, side by side, without connections at first.

    `looks_every` says after how many packets the tables are compared and looked over; verdicts and
    packets are compared each time.
    """

    packets = 0
    """How many were sent to both in all."""

    def __init__(self, rig: Rig, *, looks_every: int = 1, **settings: Any) -> None:
        self.rig = rig
        rig.forget_fragments()
        self.model = Model(
            family=rig.family,
            settings=rig.configure(**settings),
            private_index=rig.private_index,
            macs={rig.index(each): mac_of(each) for each in (PUBLIC, PRIVATE)},
            installed=rig.sync.installed(),
            ticks_per_second=rig.datapath.ticks_per_second,
            capacity=rig.settings.max_connections,
            way_to=self._way_to,
            places=opening_places(rig.settings.max_connections),
            cursor=rig.ring.cursor(),
            searched=rig.ring.searched(),
        )
        self._classifier = Runner(rig.datapath.program_fds["classify"])
        self._clocks = Runner(rig.datapath.program_fds["read_clocks"])
        self._looks_every = looks_every
        self._unseen = self._refused = 0
        self._verdicts = rig.verdicts()
        rig.allow_refusals()

    def send(
        self, packet: Packet | bytes, arrives_on: Interface = PUBLIC, *, gso_size: int = 0
    ) -> Outcome:
        """Give both a packet; they must agree on verdict, packet and tables."""
        Agreement.packets += 1
        arrival = Arrival(to_frame(packet, arrives_on), arrives_on, gso_size)
        earliest = self._now()
        action, frame = self._classifier.run(
            arrival.frame, self.rig.index(arrives_on), arrival.gso_size
        )
        latest = self._now()
        if earliest == latest:
            verdict = self._receive(arrival, action, frame, latest)
            self._unseen += 1
            if self._unseen >= self._looks_every:
                self.look()
        else:
            verdict = self._receive_meanwhile(arrival, action, frame, earliest, latest)
        if verdict.name.startswith("REFUSE"):
            self._refused += 1
            if self._refused % FEW_REFUSALS == 0:
                self.rig.allow_refusals()
        return Outcome(verdict, frame)

    def _now(self) -> int:
        """Return the kernel's clock."""
        _, frame = self._clocks.run(_CLOCKS, 0)
        return int.from_bytes(frame[ETHERNET : ETHERNET + 4], sys.byteorder)

    def _receive(self, arrival: Arrival, action: int, frame: bytes, now: int) -> Verdict:
        """Give the model a packet at that time; it must come to the same."""
        self.model.now = now
        untagged = as_read(arrival.frame, arrival.by)
        read = untagged or arrival.frame
        index = self.rig.index(arrival.by)
        verdict, expected = self.model.receive(arrival.frame, index, arrival.gso_size)
        assert action == action_of(verdict), f"action {action} where {verdict.name} is expected"
        if not verdict.name.startswith("FORWARD"):
            assert frame.hex() == expected.hex()
        else:
            parsed = parse(read, mac_of(arrival.by), arrival.gso_size, self.rig.family)
            assert parsed is not None
            if verdict is Verdict.FORWARD_ERROR:
                about = quoted(read, parsed)
                assert about is not None
                assert blank_error(frame, parsed, about).hex() == expected.hex()
                faults = error_faults(read, parsed, about)
                assert error_faults(frame, parsed, about) == faults
            else:
                assert blank(frame, parsed).hex() == expected.hex()
                assert packet_faults(frame, parsed) == packet_faults(read, parsed)
        if is_counted(untagged):
            self._verdicts[verdict] += 1  # what is of another protocol is not for it to count
        return verdict

    def _receive_meanwhile(
        self, arrival: Arrival, action: int, frame: bytes, earliest: int, latest: int
    ) -> Verdict:
        """The same where the clock has ticked meanwhile: they must agree if some time between is
        taken for the one at which the classifier read it."""
        memory, verdicts = self.model.memory(), list(self._verdicts)
        for now in (earliest, latest, *range(earliest + 1, latest)):
            try:
                verdict = self._receive(arrival, action, frame, now)
                self.look()
            except AssertionError as error:
                disagreement = error
                self.model.recall(memory)
                self._verdicts = list(verdicts)
            else:
                return verdict
        raise disagreement

    def look(self) -> None:
        """Compare all that packets leave behind, now."""
        self._unseen = 0
        counted = self.rig.verdicts()
        assert _named(counted) == _named(self._verdicts)
        self.compare_tables()

    def compare_tables(self) -> None:
        """Check that both know the same connections, in every field, and that they are whole."""
        wanted = {flow: each.halves() for flow, each in self.model.connections.items()}
        found: dict[Flow, tuple[Half, Half]] = self.rig.pairs()
        assert found == wanted
        assert len(self.model.answers) == len(self.model.connections)
        opening = sum(not dnat.state & ASSURED for dnat, _ in found.values())
        assert opening <= self.model.places
        counted = self.rig.loads.snapshot()
        assert self.rig.loads.connections(counted) == self.model.loads()
        assert self.rig.loads.sources(counted) == self.model.source_loads()
        assert self.rig.first_fragments() == self.model.fragments.times()

    def pass_time(self, seconds: float) -> None:
        """Let time go by for both."""
        self.rig.pass_time(seconds)
        ticks = round(seconds * self.model.ticks_per_second)
        for connection in self.model.connections.values():
            _age(connection, ticks)
        self.installed_anew()
        self.model.fragments.age(ticks)
        self.model.buckets.age(ticks)

    def installed_anew(self) -> None:
        """Tell the model what is installed, once that has changed."""
        self.model.install(self.rig.sync.installed())

    def collect(self) -> int:
        """Have both remove what is over, and return how many connections that were."""
        report = self.rig.sync.collect()
        self.model.now = self.rig.datapath.now()
        removed = self.model.collect()
        assert (report.removed, report.lone_halves) == (removed, 0)
        self.compare_tables()
        return removed

    def _way_to(self, client: Address) -> Way | None:
        """What the routes of the namespace say."""
        if client in [world.address(each) for each in (world.UNROUTABLE, *OURS)]:
            return None
        if client.is_multicast or client.is_loopback or client.is_unspecified:
            return None
        if isinstance(client, IPv6Address):
            if client.is_link_local or client.ipv4_mapped is not None:
                return None
        elif str(client) == BROADCAST:
            return None
        if client in world.network("10.0.0.0/24"):
            return Way(int(client), self.rig.private_index, world.MTU)
        return Way(int(world.address(world.GATEWAY)), self.rig.public_index, world.MTU)


def _age(connection: Connection, ticks: int) -> None:
    connection.opened = (connection.opened - ticks) & _M
    for side in (connection.client, connection.server):
        side.seen = (side.seen - ticks) & _M
        side.checked = (side.checked - ticks) & _M


def _named(counts: Sequence[int]) -> dict[str, int]:
    return {verdict.name: counts[verdict] for verdict in Verdict if counts[verdict]}
