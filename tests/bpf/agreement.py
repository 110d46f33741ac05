"""Drive the model and the classifier with the same packets, and hold the one to the other."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from scapy.packet import Packet

from llb_core.datapath.layout import ASSURED, Verdict, opening_places
from llb_core.model import Address
from tests.bpf.harness import world
from tests.bpf.harness.rig import Outcome, Rig, to_frame
from tests.bpf.harness.tables import Flow, Half
from tests.bpf.harness.world import PRIVATE, PUBLIC, Interface
from tests.bpf.model import Model
from tests.bpf.model_connection import Connection, Way
from tests.bpf.model_icmp import blank_error, error_faults, quoted
from tests.bpf.model_packet import blank, packet_faults, parse

TRIES = 1000
OURS = (world.VIP, world.PUBLIC_ADDRESS, world.PRIVATE_ADDRESS)
BROADCAST = "255.255.255.255"
_M = 0xFFFFFFFF


class Agreement:
    """Both, side by side, without connections at first."""

    packets = 0
    """How many were sent to both in all."""

    def __init__(self, rig: Rig, **settings: Any) -> None:
        self.rig = rig
        rig.forget_fragments()
        self.model = Model(
            family=rig.family,
            settings=rig.configure(**settings),
            private_index=rig.private_index,
            macs={rig.index(each): _mac(each) for each in (PUBLIC, PRIVATE)},
            installed=rig.sync.installed(),
            ticks_per_second=rig.datapath.ticks_per_second,
            capacity=rig.settings.max_connections,
            way_to=self._way_to,
            places=opening_places(rig.settings.max_connections),
            cursor=rig.ring.cursor(),
            searched=rig.ring.searched(),
        )

    def send(
        self, packet: Packet | bytes, arrives_on: Interface = PUBLIC, *, gso_size: int = 0
    ) -> Outcome:
        """Give both a packet; they must agree on verdict, packet and tables."""
        Agreement.packets += 1
        frame = to_frame(packet, arrives_on)
        outcome = self._within_one_tick(lambda: self.rig.send(frame, arrives_on, gso_size=gso_size))
        index = self.rig.index(arrives_on)
        verdict, expected = self.model.receive(frame, index, gso_size)
        assert outcome.verdict.name == verdict.name
        parsed = parse(frame, _mac(arrives_on), gso_size, self.rig.family)
        if verdict is Verdict.FORWARD_ERROR:
            assert parsed is not None
            about = quoted(frame, parsed)
            assert about is not None
            assert blank_error(outcome.frame, parsed, about).hex() == expected.hex()
            assert error_faults(outcome.frame, parsed, about) == error_faults(frame, parsed, about)
        elif verdict.name.startswith("FORWARD"):
            assert parsed is not None
            assert blank(outcome.frame, parsed).hex() == expected.hex()
            assert packet_faults(outcome.frame, parsed) == packet_faults(frame, parsed)
        else:
            assert outcome.frame.hex() == expected.hex()
        self.compare_tables()
        return outcome

    def compare_tables(self) -> None:
        """Check that both know the same connections, in every field, and that they are whole."""
        wanted = {flow: each.halves() for flow, each in self.model.connections.items()}
        found: dict[Flow, tuple[Half, Half]] = self.rig.pairs()
        assert found == wanted
        assert len(self.model.answers) == len(self.model.connections)
        opening = sum(not dnat.state & ASSURED for dnat, _ in found.values())
        assert opening <= self.model.places
        assert self.rig.loads.connections() == self.model.loads()
        assert self.rig.loads.sources() == self.model.source_loads()

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
        self.model.installed = self.rig.sync.installed()

    def collect(self) -> int:
        """Have both remove what is over, and return how many connections that were."""
        report = self.rig.sync.collect()
        self.model.now = self.rig.datapath.now()
        removed = self.model.collect()
        assert (report.removed, report.lone_halves) == (removed, 0)
        self.compare_tables()
        return removed

    def _within_one_tick(self, run: Callable[[], Outcome]) -> Outcome:
        """Run something while the kernel's clock stands still, so that the model can know what
        time it was; where it ticked, put everything back and try again."""
        tables = (self.rig.dnat, self.rig.snat)
        entries = [table.snapshot() for table in tables]
        place = self.rig.ring.snapshot()
        loads = self.rig.loads.snapshot()
        for _ in range(TRIES):
            before = self.rig.datapath.now()
            outcome = run()
            if self.rig.datapath.now() == before:
                self.model.now = before
                return outcome
            for table, before_it in zip(tables, entries, strict=True):
                table.restore(before_it)
            self.rig.ring.restore(place)
            self.rig.loads.restore(loads)
        raise AssertionError(f"no run took less than a tick in {TRIES} tries")

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


def _mac(interface: Interface) -> bytes:
    return bytes.fromhex(interface.mac.replace(":", ""))
