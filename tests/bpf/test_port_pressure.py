"""SNAT ports in short supply: many connections to one backend, and floods that hold its ports."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from llb_core.datapath import bpf_syscall
from llb_core.datapath.layout import ANSWERED, ASSURED, ConnectionState, Verdict
from tests.bpf.conftest import Rigs
from tests.bpf.harness import world
from tests.bpf.harness.family import at_hand, name_of
from tests.bpf.harness.namespace import Namespace
from tests.bpf.harness.packets import tcp
from tests.bpf.harness.rig import ETHERNET, Rig, to_frame
from tests.bpf.harness.world import BACKEND, CLIENT, OTHER_CLIENT, PUBLIC, SNAT, VIP

pytestmark = pytest.mark.root

CAPACITY = 131_072
RANGE = 32_767 - 1_024 + 1
ESTABLISHED = ConnectionState.ESTABLISHED | ANSWERED | ASSURED
ATTEMPTS, FEW = 10_000, 500
"""SYNs at 90 percent, and how many between two times that these are taken away: so few that the
range is never fuller than 92 percent, where 128 tries fail once in 78,000, and 64 once in 280."""
AT_ONCE = 2_000
"""SYNs between two times that what was opened is made established: far from any pressure."""


@pytest.fixture
def wide_rig(namespace: Namespace, rigs: Rigs, family: int) -> Iterator[Rig]:
    """Room for more connections than one backend has ports, and all the time to send them: none is
    over because the machine is slow."""
    with namespace.entered():
        rig = rigs.get(family, CAPACITY)
        patient = [
            replace(each, timeouts=replace(each.timeouts, opening=3600.0))
            for each in world.services(rig.private_index)
        ]
        rig.install(*patient)
        yield rig


def send_syns(rig: Rig, client: str, number: int) -> dict[str, int]:
    """Send the first segments of that many clients, from that address on; return the verdicts."""
    frame = bytearray(to_frame(tcp(client, VIP, 1, 80, "S", seq=999), PUBLIC))
    address_at, port_at = (ETHERNET + 12, ETHERNET + 20) if at_hand() == 4 else (34, 54)
    base = int(ipaddress.IPv4Address(client))
    context = bytes(40) + struct.pack("=I", rig.public_index)
    program = rig.datapath.program_fds["classify"]
    before = rig.datapath.counters().verdicts
    for each in range(number):
        struct.pack_into("!I", frame, address_at, base + each // 60_000)
        struct.pack_into("!H", frame, port_at, 1024 + each % 60_000)
        bpf_syscall.prog_test_run(program, bytes(frame), context=context)
    after = rig.datapath.counters().verdicts
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def establish_all(rig: Rig) -> None:
    """Make every connection an established one."""
    for table in (rig.dnat, rig.snat):
        keys, records = table.snapshot()
        records["state"] = ESTABLISHED
        table.put(keys, records)


def fill(rig: Rig, number: int) -> dict[str, int]:
    """Open that many connections and establish them as they come; return the verdicts."""
    verdicts: dict[str, int] = {}
    for place, start in enumerate(range(0, number, AT_ONCE)):
        client = f"192.0.{place + 2}.1"
        for name, count in send_syns(rig, client, min(AT_ONCE, number - start)).items():
            verdicts[name] = verdicts.get(name, 0) + count
        establish_all(rig)
    return verdicts


def evicted(rig: Rig) -> int:
    """Count the opening connections that had to make room."""
    slot = rig.backend(BACKEND, 8080).slot
    found = rig.datapath.counters().backends.get(slot)
    return found.opening_evicted if found else 0


def no_port(rig: Rig) -> int:
    """Count the connections to the backend that found no port."""
    slot = rig.backend(BACKEND, 8080).slot
    found = rig.datapath.counters().backends.get(slot)
    return found.no_port if found else 0


def test_28_000_connections_to_one_backend_over_one_address(wide_rig: Rig) -> None:
    before = evicted(wide_rig)

    assert fill(wide_rig, 28_000) == {"forward_new": 28_000}

    assert len(wide_rig.dnat.snapshot()[0]) == 28_000
    assert evicted(wide_rig) == before


def forget_opening(rig: Rig) -> int:
    """Take away all connections that are not established; return how many these were."""
    for table in (rig.snat, rig.dnat):
        keys, records = table.snapshot()
        keys = keys[records["state"] != ESTABLISHED]
        table.remove_all(keys)
    return len(keys)


def test_none_of_ten_thousand_fails_at_90_percent_of_the_range(wide_rig: Rig) -> None:
    """They find free ports, and turn nobody out; once these are taken too, no established one."""
    established = RANGE * 9 // 10
    fill(wide_rig, established)
    before = evicted(wide_rig)

    for place in range(ATTEMPTS // FEW):
        verdicts = send_syns(wide_rig, f"203.0.{place}.1", FEW)
        assert (verdicts, evicted(wide_rig)) == ({"forward_new": FEW}, before)
        assert forget_opening(wide_rig) == FEW

    free = RANGE - established
    assert send_syns(wide_rig, "203.0.114.1", free + FEW) == {"forward_new": free + FEW}
    kept = forget_opening(wide_rig)
    assert kept + evicted(wide_rig) - before == free + FEW
    assert free >= kept > 0.98 * free, "free ports are found while there are any"
    assert len(wide_rig.dnat.snapshot()[0]) == established


def test_flood_of_one_backend_keeps_nobody_out(wide_rig: Rig) -> None:
    """Twice as many SYNs as there are ports, and each is sent on; so is the honest one's."""
    fill(wide_rig, AT_ONCE)
    before = evicted(wide_rig), no_port(wide_rig)

    verdicts = send_syns(wide_rig, "203.0.114.1", 2 * RANGE)

    assert verdicts == {"forward_new": 2 * RANGE}
    assert evicted(wide_rig) - before[0] >= RANGE
    assert no_port(wide_rig) == before[1]
    assert wide_rig.send(tcp(CLIENT, VIP, 5000, 80, "S")).verdict is Verdict.FORWARD_NEW
    states = wide_rig.dnat.snapshot()[1]["state"]
    assert np.count_nonzero(states == ESTABLISHED) == AT_ONCE


def test_backend_s_failures_are_counted_for_it_alone(rig: Rig) -> None:
    rig.configure(snat_ports=(2000, 2000))
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 80, "S"))
    establish_all(rig)
    before = no_port(rig)
    drops = rig.datapath.counters().services

    for port in (5000, 5001):
        assert rig.send(tcp(CLIENT, VIP, port, 80, "S")).verdict is Verdict.DROP_NO_PORT

    assert no_port(rig) == before + 2
    service = rig.backend(BACKEND, 8080).service_slot
    earlier = drops[service].no_port if service in drops else 0
    assert rig.datapath.counters().services[service].no_port == earlier + 2


def test_opening_tuple_is_the_last_resort(rig: Rig) -> None:
    """Four ports: one opening, three established; the flood's gives way."""
    rig.configure(snat_ports=(2000, 2003))
    for port in (2000, 2001, 2002):
        rig.send(tcp(OTHER_CLIENT, VIP, port, 80, "S"))
    establish_all(rig)
    rig.send(tcp(OTHER_CLIENT, VIP, 2003, 80, "S"))
    before = evicted(rig)

    outcome = rig.send(tcp(CLIENT, VIP, 2000, 80, "S"))

    assert (outcome.verdict, outcome.packet.sport) == (Verdict.FORWARD_NEW, 2003)
    assert evicted(rig) == before + 1
    assert len(rig.pairs()) == 4


def test_closed_tuple_goes_before_an_opening_one(rig: Rig) -> None:
    rig.configure(snat_ports=(2000, 2003))
    for port in (2000, 2001, 2002):
        rig.send(tcp(OTHER_CLIENT, VIP, port, 80, "S"))
    for table in (rig.dnat, rig.snat):
        for flow in table.halves():
            table.edit(flow, state=0xE00 | ConnectionState.CLOSED | ANSWERED | ASSURED)
    rig.pass_time(1)
    rig.send(tcp(OTHER_CLIENT, VIP, 2003, 80, "S"))
    before = evicted(rig)

    outcome = rig.send(tcp(CLIENT, VIP, 2003, 80, "S"))

    assert (outcome.verdict, outcome.packet.sport < 2003) == (Verdict.FORWARD_NEW, True)
    assert evicted(rig) == before


def test_late_answer_to_whom_lost_his_port_is_none_to_the_next(rig: Rig) -> None:
    """It is forwarded, so that the new client tells the backend of it, and changes nothing."""
    rig.configure(snat_ports=(2000, 2000))
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 80, "S", seq=2**31 + 77))
    rig.send(tcp(CLIENT, VIP, 5000, 80, "S", seq=999))
    assert [flow.src for flow in rig.pairs()] == [world.address(CLIENT)]

    late = rig.send(tcp(BACKEND, SNAT, 8080, 2000, "SA", seq=1, ack=2**31 + 78), world.PRIVATE)
    refusal = rig.send(tcp(CLIENT, VIP, 5000, 80, "R", seq=2**31 + 78))

    assert (late.verdict, name_of(late.packet.dst)) == (Verdict.FORWARD_TO_CLIENT, CLIENT)
    assert refusal.verdict is Verdict.FORWARD_TO_BACKEND
    assert rig.pair()[0].state == ConnectionState.OPENING
