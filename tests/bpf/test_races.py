"""Several CPUs on the same few tuples, and the collector among them: at rest all is whole."""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from llb_core.datapath import bpf_syscall, programs
from llb_core.datapath.layout import ASSURED, ConnectionState, opening_places
from tests.bpf.harness.packets import tcp
from tests.bpf.harness.rig import Rig, to_frame
from tests.bpf.harness.world import BACKEND, PRIVATE, PUBLIC, SNAT, VIP, Interface

pytestmark = pytest.mark.root

ROUNDS = 20_000
CLIENTS = [f"192.0.2.{host}" for host in range(6)]
PORTS = range(2000, 2004)


def runner(rig: Rig, frames: Sequence[tuple[bytes, Interface]], seed: int) -> Callable[[], None]:
    """Return what sends frames at random; the C side runs without Python's lock."""
    program = rig.datapath.program_fds["classify"]
    contexts = [bytes(40) + struct.pack("=I", rig.index(each)) for _, each in frames]

    def run() -> None:
        chance = random.Random(seed)
        for _ in range(ROUNDS):
            which = chance.randrange(len(frames))
            bpf_syscall.prog_test_run(program, frames[which][0], context=contexts[which])

    return run


FLAGS = pytest.mark.parametrize(
    "flags",
    [("S", "S", "R"), ("S", "SA", "A", "FA", "A", "R"), ("S", "SA", "A", "FA", "A")],
    ids=["opened and reset", "everything", "closed in order"],
)


@FLAGS
def test_connections_are_whole_however_the_cpus_meet(rig: Rig, flags: tuple[str, ...]) -> None:
    meet(rig, flags)

    assert 1 <= len(rig.pairs()) <= len(PORTS)
    live = sum(half.kind is not ConnectionState.CLOSED for half, _ in rig.pairs().values())
    assert sum(rig.loads.connections()[1].values()) == live
    assert rig.sync.collect().lone_halves == 0


@FLAGS
def test_connections_are_whole_where_they_make_room_for_each_other(
    small_rig: Rig, flags: tuple[str, ...]
) -> None:
    """Two may be opening, so nearly each that opens turns another out while it is spoken on."""
    meet(small_rig, flags)

    pairs = small_rig.pairs()
    opening = [dnat for dnat, _ in pairs.values() if not dnat.state & ASSURED]
    assert len(pairs) >= 1
    assert len(opening) <= opening_places(small_rig.settings.max_connections)
    assert small_rig.sync.collect().lone_halves == 0


def meet(rig: Rig, flags: tuple[str, ...]) -> None:
    """Have three senders send segments of a few connections at once, and the collector run."""
    rig.configure(snat_ports=(PORTS[0], PORTS[-1]))
    frames = [
        (to_frame(tcp(client, VIP, 40000, 80, flag, seq=1000, ack=1001), PUBLIC), PUBLIC)
        for client in CLIENTS
        for flag in flags
        if flag != "SA"
    ]
    frames += [
        (to_frame(tcp(BACKEND, SNAT, 8080, port, flag, seq=1000, ack=1001), PRIVATE), PRIVATE)
        for port in PORTS
        for flag in flags
        if flag != "S"
    ]
    is_done = threading.Event()

    def collect() -> None:
        program = rig.datapath.program_fds["collect"]
        while not is_done.is_set():
            programs.run_collector(program, rig.dnat.snapshot()[0], rig.family)

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(runner(rig, frames, seed)) for seed in range(3)]
        collector = pool.submit(collect)
        for sender in senders:
            sender.result()
        is_done.set()
        collector.result()
