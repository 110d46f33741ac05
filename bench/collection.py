"""Measure a pass of collection over a million connections, beside packets that go on meanwhile.

The tables are filled with established connections; one thread collects, another sends packets of
all of them in turn through the classifier (BPF_PROG_TEST_RUN), on another CPU where there is one.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.program_time import ACK, BACKEND, CLIENT, SNAT, VIP, Bench, bench, namespace
from llb_core.datapath import layout
from llb_core.map_sync import MapSync

CONNECTIONS = 1_000_000
PORTS = 4_096
"""Clients' ports in a walk of `many_clients`, from this one on:"""
FIRST_PORT = 33_000
TUPLES_A_BACKEND = 100_000
BATCH = 100_000
"""Packets between two readings of the clock."""
OVER = 8
"""One in so many is over, in the passes that remove some: by the client's address."""
ESTABLISHED = layout.ConnectionState.ESTABLISHED | layout.ANSWERED | layout.ASSURED
CLOSED = layout.ConnectionState.CLOSED | layout.ANSWERED | layout.ASSURED


def measure(repetitions: int, connections: int) -> str:
    """Return a table in Markdown."""
    with namespace(), bench(connections) as it:
        sync = MapSync(it.family)
        fill(it, connections)
        memory = [_memory(it, name) for name in ("dnat_table", "snat_table", "opening_ring")]
        alone = _packets(it, connections, lambda: None, repetitions)
        idle: list[float] = []
        meanwhile = _packets(
            it, connections, lambda: idle.append(sync.collect().seconds), repetitions
        )
        removing: list[float] = []
        for _ in range(repetitions):
            _age(it)
            report = sync.collect()
            if not report.removed:
                raise SystemExit("nothing was removed")
            removing.append(report.seconds)
            fill(it, connections)
    rows = [
        (f"a pass over {connections:,} connections", _seconds(idle)),
        (f"the same, one in {OVER} being over", _seconds(removing)),
        ("a packet of one of them, nobody collecting", _nanoseconds(alone)),
        ("the same, during passes", _nanoseconds(meanwhile)),
        (
            "kernel memory a connection, both directions",
            f"{sum(memory[:2]) / connections:.0f} bytes",
        ),
        ("the ring of opening connections", f"{memory[2] / 1e6:.1f} MB"),
    ]
    lines = [f"| {what} | {figure} |" for what, figure in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def fill(it: Bench, connections: int) -> None:
    """Make the tables hold that many established connections, those of a walk."""
    installed = it.family.installed()
    (backend,) = installed.backends.values()
    turn = np.arange(connections, dtype=np.uint32)
    keys = np.zeros(connections, layout.IPV4.flow_key)
    keys["src"] = int(CLIENT) ^ ((turn >> 12) & 0xFF)
    keys["sport"] = FIRST_PORT + turn % PORTS
    keys["dst"], keys["dport"] = int(VIP), 80
    halves = np.zeros(connections, layout.IPV4.nat_entry)
    halves["new_src"], halves["new_sport"] = int(SNAT), 1024 + turn % TUPLES_A_BACKEND % 31_744
    # One backend has not ports enough for so many: the tuples are those of many.
    halves["new_src"] += turn % TUPLES_A_BACKEND // 31_744
    halves["new_dst"] = int(BACKEND) + turn // TUPLES_A_BACKEND
    halves["new_dport"] = backend.endpoint.port
    twin_keys, twins = np.zeros_like(keys), np.zeros_like(halves)
    for key, half in (("src", "new_dst"), ("dst", "new_src"),
                      ("sport", "new_dport"), ("dport", "new_sport")):  # fmt: skip
        twin_keys[key] = halves[half]
        twins[half] = keys[key]
    for table, of, records in ((0, keys, halves), (1, twin_keys, twins)):
        of["proto"] = 6
        records["state"] = ESTABLISHED
        records["seen"] = now = it.family.now()
        records["checked"] = now & 0xFFFF
        records["backend"], records["service"] = backend.slot, backend.service_slot
        it.tables[table].update_batch(of, records)


def _age(it: Bench) -> None:
    """Let one connection in so many be over: closed long ago."""
    for table in it.tables:
        keys, records = table.read_all()
        clients = keys["src"] if table is it.tables[0] else records["new_dst"]
        chosen = clients % OVER == 0
        records["state"][chosen] = CLOSED
        records["seen"][chosen] -= np.uint32(3600 * it.family.ticks_per_second)
        table.update_batch(keys[chosen], records[chosen])


def _packets(
    it: Bench, connections: int, meanwhile: Callable[[], object], repetitions: int
) -> list[int]:
    """Send packets of all connections in turn, while something is done so often; return the
    nanoseconds of each batch."""
    packet = it.packet((CLIENT, FIRST_PORT), (VIP, 80), ACK, it.mac)
    it.set_walk(0, 1 << (connections.bit_length() - 1))
    found: list[int] = []
    is_done = threading.Event()

    def send() -> None:
        os.sched_setaffinity(threading.get_native_id(), {max(os.sched_getaffinity(0))})
        while not is_done.is_set():
            found.append(it.run("many_clients", packet, repeat=BATCH)[1])

    thread = threading.Thread(target=send)
    thread.start()
    try:
        for _ in range(repetitions):
            before = len(found)
            meanwhile()
            while len(found) < before + 2:
                is_done.wait(0.01)
    finally:
        is_done.set()
        thread.join()
    return found


def _memory(it: Bench, name: str) -> int:
    """Return the bytes that the kernel has taken for a map."""
    lines = Path(f"/proc/self/fdinfo/{it.family.maps[name].fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("memlock"))


def _seconds(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.2f} s ({min(found):.2f} to {max(found):.2f})"


def _nanoseconds(found: Sequence[int]) -> str:
    return f"{statistics.median(found):.0f} ns ({min(found)} to {max(found)})"
