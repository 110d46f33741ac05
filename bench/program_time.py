"""Measure the classifier's time for one packet, by BPF_PROG_TEST_RUN.

In nanoseconds, and as a multiple of an empty program that only restores the packet between runs:
each the minimum of interleaved rounds. Run it by `make bench ARGS=program-time`; needs root, makes
one network namespace and removes it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np

from bench import program_against
from llb_core.config import LoadBalancerConfig
from llb_core.datapath import (
    Datapath,
    Family,
    attach,
    bpf_syscall,
    bpffs,
    loader,
    pins,
    programs,
)
from llb_core.datapath.bpf_map import MapReader, MapWriter, create
from llb_core.datapath.layout import MapSpec, MapType, Verdict, compile_flags, records
from llb_core.datapath.sources import amalgamate
from llb_core.map_sync import MapSync
from llb_core.model import (
    Address,
    BackendMode,
    Desired,
    DesiredBackend,
    DesiredService,
    Endpoint,
    Network,
    ServiceKey,
    Timeouts,
    Transport,
)
from llb_core.planning.plan import make_plan

NAME = f"llb-{os.getpid()}-time"
PROGRAMS = (
    *loader.PROGRAMS,
    "restore_only",
    "restore_and_walk",
    "one_client",
    "many_clients",
    "other_clients",
)
CAPACITY = 65_536
WALK = 32_768
REPEAT = 100_000
NEW_CLIENTS = 4_096
SYN, ACK = 0x02, 0x10
_M = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class World:
    """The addresses of a family, and how large a frame is that holds a segment of TCP."""

    vip: Address
    client: Address
    backend: Address
    snat: Address
    backends: Network
    frame: int


WORLDS = {
    4: World(
        ip_address("203.0.113.10"),
        ip_address("198.51.100.128"),
        ip_address("10.0.0.2"),
        ip_address("10.0.0.11"),
        ip_network("10.0.0.0/24"),
        64,
    ),
    6: World(
        ip_address("2001:db8:1::10"),
        ip_address("2001:db8:2::8000"),
        ip_address("fd00::2"),
        ip_address("fd00::11"),
        ip_network("fd00::/64"),
        80,
    ),
}
VIP, CLIENT, BACKEND, SNAT = (
    WORLDS[4].vip,
    WORLDS[4].client,
    WORLDS[4].backend,
    WORLDS[4].snat,
)
_ADDRESSES = """
addr add 198.51.100.1/24 dev public
addr add 10.0.0.1/24 dev private
neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev private
neigh add 198.51.100.128 lladdr 02:00:00:00:00:07 dev public
route add default via 198.51.100.128 dev public
addr add 2001:db8:2::1/64 dev public nodad
addr add fd00::1/64 dev private nodad
neigh add fd00::2 lladdr 02:00:00:00:00:02 dev private
neigh add 2001:db8:2::8000 lladdr 02:00:00:00:00:07 dev public
-6 route add default via 2001:db8:2::8000 dev public
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that a measurement needs."""

    world: World
    family: Family
    fds: dict[str, int]
    frame: MapWriter
    walk: MapWriter
    tables: tuple[MapWriter, MapWriter]
    context: bytes
    mac: bytes

    def packet(
        self, source: tuple[Any, int], target: tuple[Any, int], flags: int, mac: bytes
    ) -> bytes:
        """Return a TCP packet; nobody checks its sums."""
        size = self.world.frame - 14
        ends: bytes = source[0].packed + target[0].packed
        if self.family.number == 4:
            ip = b"\x08\x00" + struct.pack("!BBHHHBBH", 0x45, 0, size, 1, 0, 64, 6, 0) + ends
        else:
            ip = b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, size - 40, 6, 64) + ends
        tcp = struct.pack("!HHIIBBHHH", source[1], target[1], 1000, 2000, 0x50, flags, 512, 0, 0)
        return (mac + bytes(6) + ip + tcp).ljust(self.world.frame, b"\0")

    def run(self, program: str, packet: bytes, repeat: int = REPEAT) -> tuple[int, int]:
        """Run a program so often; return the last verdict's action and nanoseconds a run."""
        self.frame.update(0, packet)
        done = bpf_syscall.prog_test_run(
            self.fds[program], packet, repeat=repeat, context=self.context
        )
        return done.retval, done.duration_ns

    def set_walk(self, turn: int, clients: int) -> None:
        """Say where the walk over clients begins, and after how many it comes round."""
        self.walk.update(0, (turn, clients))

    def clear(self, *, like_new: bool) -> None:
        """Empty both tables.

        The kernel hands out the entry freed last. Like new: freed in the reverse of the order in
        which they were taken, so that they are taken in the order of memory again. Otherwise in
        the order of hashes, which is as good as random: as in a table that has long been in use.
        """
        dnat, snat = self.tables
        keys, values = dnat.read_all()
        order = np.arange(len(keys))
        if like_new:
            low = records(self.family.number).words(keys["src"])[:, -1]
            order = np.lexsort((keys["sport"], low ^ np.uint32(int(self.world.client) & _M)))[::-1]
        for row in order:
            key, value = keys[row], values[row]
            dnat.delete(key)
            twin = np.zeros(1, dtype=keys.dtype)[0]
            twin["src"], twin["dst"] = value["new_dst"], value["new_src"]
            twin["sport"], twin["dport"] = value["new_dport"], value["new_sport"]
            twin["proto"] = key["proto"]
            snat.delete(twin)


@contextlib.contextmanager
def namespace() -> Iterator[None]:
    """Move this process into a namespace of its own with two veth pairs, and back."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    inside = os.open(f"/run/netns/{NAME}", os.O_RDONLY)
    try:
        if libc.setns(inside, 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")
        for line in (
            "link set lo up",
            "link add public type veth peer name client",
            "link add private type veth peer name backend",
            *(f"link set {each} up" for each in ("public", "client", "private", "backend")),
            *_ADDRESSES.strip().splitlines(),
        ):
            subprocess.run(["ip", *line.split()], check=True)
        yield
    finally:
        libc.setns(before, 0x40000000)
        os.close(before)
        os.close(inside)
        subprocess.run(["ip", "netns", "del", NAME], check=False)


def classifier(*, has_events: bool = True) -> str:
    """Return the classifier's text; without events, nothing looks whether somebody listens."""
    text = amalgamate()
    if has_events:
        return text
    asks = "struct listening *now = listening.lookup(&zero);"
    if text.count(asks) != 1:
        raise SystemExit("events.h asks in another way now whether somebody listens")
    return text.replace(asks, "struct listening *now = NULL;")


@contextlib.contextmanager
def bench(capacity: int = CAPACITY, number: int = 4, *, has_events: bool = True) -> Iterator[Bench]:
    """Load the classifier with the programs of program_time.c, and one service."""
    world = WORLDS[number]
    settings = LoadBalancerConfig(
        name=NAME,
        public_interfaces=("public",),
        private_interface="private",
        backend_cidrs=(world.backends,),
        snat_addresses=tuple(world.snat + i for i in range(4)),
        snat_ports=(1024, 32767),
        manage_addresses=True,
        max_connections=capacity,
    )
    bpffs.ensure_bpffs()
    folder = pins.pin_folder(NAME, number)
    extra = folder.with_name(folder.name + "_bench")
    extra_maps: dict[str, MapReader] = {}
    try:
        opened = pins.open_maps(NAME, number, capacity)
        extra.mkdir(exist_ok=True)
        for name, value in (
            ("bench_frame", np.dtype(f"V{world.frame}")),
            ("bench_walk", np.dtype([("t", "u4"), ("c", "u4")])),
        ):
            spec = MapSpec(name, MapType.ARRAY, np.dtype("u4"), value, 1)
            fd = create(spec)
            bpf_syscall.obj_pin(fd, extra / name)
            extra_maps[name] = MapReader(spec, fd)
        text = classifier(has_events=has_events) + Path(__file__).with_suffix(".c").read_text()
        fds = loader.load_programs(
            folder, compile_flags(capacity, number), programs=PROGRAMS, text=text
        )
        ticks = programs.measure_ticks_per_second(fds["read_clocks"])
        family = Family(number, opened, {k: fds[k] for k in loader.PROGRAMS}, ticks)
        datapath = Datapath(settings, {number: family})
        sync = MapSync(family)
        sync.put_settings(settings, datapath.private_index())
        datapath.prepare_host([world.vip])
        route = datapath.routes([world.backend])[world.backend]
        key = ServiceKey(Endpoint(world.vip, 80), Transport.TCP)
        backend = DesiredBackend(Endpoint(world.backend, 8080), 1, BackendMode.ACTIVE, route)
        service = DesiredService("web", key, Timeouts(), (backend,))
        sync.apply(make_plan(Desired({key: service}), sync.installed()))
        with attach.netlink() as ip:
            index = attach.interface_index(ip, "public")
            mac = bytes.fromhex(ip.get_links(index)[0].get_attr("IFLA_ADDRESS").replace(":", ""))
        yield Bench(
            world,
            family,
            fds,
            MapWriter.of(extra_maps["bench_frame"]),
            MapWriter.of(extra_maps["bench_walk"]),
            (MapWriter.of(opened["dnat_table"]), MapWriter.of(opened["snat_table"])),
            struct.pack("=10II", *[0] * 10, index).ljust(192, b"\0"),
            mac,
        )
    finally:
        Datapath.detach(NAME)


def establish(it: Bench, clients: int) -> None:
    """Open connections and make them established, by writing their state."""
    it.clear(like_new=True)
    it.set_walk(0, clients)
    syn = it.packet((it.world.client, 33000), (it.world.vip, 80), SYN, it.mac)
    it.run("many_clients", syn, repeat=clients)
    for table in it.tables:
        keys, values = table.read_all()
        if len(keys) != clients:
            raise SystemExit(f"only {len(keys)} of {clients} connections were opened")
        values["state"] = 0x2102  # established, answered, assured
        table.update_batch(keys, values)


def measure(rounds: int, number: int, *, has_events: bool = True) -> dict[str, int]:
    """For one address family, return the minimum nanoseconds of each case over interleaved rounds.

    The last case leaves the tables' memory in disorder, so it is measured in tables of its own.
    """
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with namespace(), bench(number=number, has_events=has_events) as it:
        best = _best(it, rounds, _cases(it))
    with namespace(), bench(number=number, has_events=has_events) as it:
        best |= _best(it, rounds, _cases_in_aged_tables(it))
    return best


Cases = dict[str, Callable[[], int]]


def _cases(it: Bench) -> Cases:
    data = it.packet((it.world.client, 33000), (it.world.vip, 80), ACK, it.mac)
    syn = it.packet((it.world.client, 33000), (it.world.vip, 80), SYN, it.mac)
    other = it.packet((it.world.client, 33000), (it.world.vip + 1, 80), ACK, it.mac)

    def established() -> int:
        establish(it, 1)
        return it.run("one_client", data)[1]

    def walking() -> int:
        establish(it, WALK)
        it.set_walk(0, WALK)
        return it.run("many_clients", data)[1]

    def opening() -> int:
        it.clear(like_new=True)
        it.set_walk(0, 1 << 30)
        return it.run("many_clients", syn, repeat=NEW_CLIENTS)[1]

    def opening_each_from_elsewhere() -> int:
        it.clear(like_new=True)
        it.set_walk(0, 1 << 30)
        return it.run("other_clients", syn, repeat=NEW_CLIENTS)[1]

    return {
        "restore only": lambda: it.run("restore_only", data)[1],
        "restore and walk": lambda: it.run("restore_and_walk", data)[1],
        "established": established,
        "new connection": opening,
        "new connection, each of another client": opening_each_from_elsewhere,
        "not ours": lambda: it.run("one_client", other)[1],
        f"established, walking {WALK} flows": walking,
    }


def _cases_in_aged_tables(it: Bench) -> Cases:
    syn = it.packet((it.world.client, 33000), (it.world.vip, 80), SYN, it.mac)

    def opening() -> int:
        it.clear(like_new=False)
        it.set_walk(0, 1 << 30)
        return it.run("many_clients", syn, repeat=NEW_CLIENTS)[1]

    return {"new connection, tables long in use": opening}


def _best(it: Bench, rounds: int, cases: Cases) -> dict[str, int]:
    best: dict[str, int] = {}
    for _ in range(rounds):
        for name, case in cases.items():
            best[name] = min(best.get(name, 1 << 31), case())
    counted = it.family.counters().verdicts
    unexpected = {n: c for n, c in counted.items() if c and n.upper() not in _EXPECTED}
    if unexpected:
        raise SystemExit(f"the bench met verdicts that it does not mean to: {unexpected}")
    return best


_EXPECTED = {
    verdict.name
    for verdict in (Verdict.FORWARD_NEW, Verdict.FORWARD_TO_BACKEND, Verdict.PASS_NOT_OURS)
}


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--family", type=int, choices=(4, 6), help="by default both")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-events", action="store_true", help="nobody can listen to events")
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help=f"an earlier commit beside it, or {program_against.NO_EVENTS}: this one without them",
    )
    arguments = parser.parse_args()
    if arguments.against:
        earlier, now = program_against.measure(arguments.against, arguments.rounds)
        print(program_against.table(arguments.against, earlier, now))
        return
    families = (arguments.family,) if arguments.family else (4, 6)
    has_events = not arguments.no_events
    best = {n: measure(arguments.rounds, n, has_events=has_events) for n in families}
    if arguments.json:
        print(json.dumps({f"ipv{number}": found for number, found in best.items()}))
        return
    print("| packet | " + " | ".join(f"IPv{n}, ns | multiple" for n in families) + " |")
    print("|---|" + "---|---|" * len(families))
    for name in best[families[0]]:
        cells = [
            f"{best[n][name]} | {best[n][name] / best[n]['restore only']:.1f}" for n in families
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
