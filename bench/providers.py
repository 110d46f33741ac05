"""Measure many backends: the real daemon, static providers on JSON files, and the pinned maps.

A figure begins when the files are renamed into their places, and ends once the classifier would act
on all of it. Nothing is checked for health, since no such backends are there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.processes import cpu_of, resident
from bench.reactions import STEP
from llb_core import config
from llb_core.datapath import Datapath
from llb_core.datapath.bpf_map import open_inner
from llb_core.datapath.installed import MODE_NUMBERS
from llb_core.datapath.mapped import read_table
from llb_core.demo import lab
from llb_core.demo.network import Network
from llb_core.model import BackendMode
from llb_core.planning.maglev import table_size
from llb_providers.consul.tests.fake_consul import FakeConsul

LIMIT = 60.0
LOOK = 0.02
"""Seconds between two looks at all maps, which take a processor some milliseconds each."""
FIRST = ipaddress.IPv4Address("10.16.0.0")
MANY, SERVICES, MIDDLE = 10_000, 100, 650
HANGING = 10
BESIDE = (0, HANGING)
AGENT_PORT = 8500

Note = Callable[[str, float], None]


@dataclass
class Site:
    """A daemon with services of static providers, and the maps that it fills."""

    balancer: lab.Balancer
    sizes: list[int]
    """How many backends each service has."""
    files: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = [self.balancer.folder / f"{n}.json" for n in range(len(self.sizes))]
        self._settings = config.load(self.balancer.config).loadbalancer
        self._slots: dict[int, int] = {}

    def start(self) -> None:
        """Start the daemon; no service has backends yet."""
        for path in self.files:
            path.write_text('{"backends": []}')
        self.balancer.start()
        self._maps = Datapath.open_reading(self._settings).families[4].maps

    def write(self, sizes: Sequence[int] | None = None) -> float:
        """Give the services so many backends, by default all of theirs; return when that was."""
        new = [self._new(number, count) for number, count in enumerate(sizes or self.sizes)]
        self._slots.clear()  # Whoever comes back may be in another one.
        began = time.monotonic()
        for path in new:
            path.rename(path.with_suffix(".json"))
        return began

    def write_one(self, number: int, count: int) -> float:
        """Give one service so many; return when that was."""
        path = self._new(number, count)
        path.rename(path.with_suffix(".json"))
        return time.monotonic()

    def _new(self, number: int, count: int) -> Path:
        start = FIRST + sum(self.sizes[:number])
        backends = [{"address": str(start + each), "port": 8080} for each in range(count)]
        path = self.files[number].with_suffix(".new")
        path.write_text(json.dumps({"backends": backends}))
        return path

    def active(self) -> int:
        """How many backends take new connections."""
        _, records = self._maps["backends"].read_all()
        return int((records["mode"] == MODE_NUMBERS[BackendMode.ACTIVE]).sum())

    def is_active(self, backend: int) -> bool:
        """Whether this one of all takes new connections: a look at its record alone, which costs
        the daemon nothing."""
        if backend not in self._slots:
            _, records = self._maps["backends"].read_all()
            (slots,) = np.nonzero(records["address"] == int(FIRST + backend))
            self._slots[backend] = int(slots[0])
        record: Any = self._maps["backends"].lookup(self._slots[backend])
        return bool(record["mode"] == MODE_NUMBERS[BackendMode.ACTIVE])

    def tables(self) -> list[int]:
        """The sizes of the tables that are there."""
        sizes = []
        for slot in range(1, len(self.sizes) + 1):
            inner = open_inner(self._maps["maglev_tables"], slot)
            if inner is not None:
                sizes.append(read_table(inner).size)
                inner.close()
        return sizes

    def settled(self) -> bool:
        """Say whether all backends are active and every service has a table of its final size."""
        return self.active() == sum(self.sizes) and len(self.tables()) == len(self.sizes)

    def table_of(self, slot: int) -> np.ndarray:
        """A service's table as it is."""
        inner = open_inner(self._maps["maglev_tables"], slot)
        if inner is None:
            return np.zeros(0, dtype=np.uint32)
        try:
            return read_table(inner)
        finally:
            inner.close()

    def differs(self, slot: int, table: np.ndarray, places: int) -> bool:
        """Say whether a service's table differs from that one in more than so many places."""
        return bool((self.table_of(slot) != table).sum() > places)

    def equals(self, slot: int, table: np.ndarray) -> bool:
        """Say whether a service's table is that one."""
        return np.array_equal(self.table_of(slot), table)

    def cpu(self) -> float:
        """Seconds of CPU that the daemon has used."""
        assert self.balancer.daemon is not None
        return cpu_of(self.balancer.daemon.pid)

    def memory(self) -> dict[str, float]:
        """MiB that the daemon has resident, and had at most."""
        assert self.balancer.daemon is not None
        pid = self.balancer.daemon.pid
        return {"VmRSS": resident(pid, "VmRSS"), "VmHWM": resident(pid, "VmHWM")}


@contextlib.contextmanager
def site(sizes: Sequence[int], *, services: str = "") -> Iterator[Site]:
    """A load balancer with services of so many backends each, and `services` besides."""
    with Network() as network, tempfile.TemporaryDirectory(prefix="llb-bench-") as folder:
        hosts = lab.build(network)
        hosts.lb.ip("route add 10.16.0.0/12 dev eth1")
        balancer = lab.Balancer(hosts, Path(folder))
        balancer.write_config(
            f"""\
[loadbalancer]
name              = "{balancer.name}"
public_interface  = "{hosts.public_interface}"
private_interface = "{hosts.private_interface}"
backend_cidrs     = ["10.0.0.0/8"]
snat_addresses    = ["10.0.0.1"]
max_connections   = 65536
"""
            + "".join(_service(number) for number in range(len(sizes)))
            + services
        )
        try:
            yield Site(balancer, list(sizes))
        finally:
            balancer.remove()


def _service(number: int) -> str:
    return f"""
[services.s{number}]
address  = "{lab.VIP}"
port     = {10_000 + number}
guard    = {{ loss = "100%" }}
provider = {{ name = "static", path = "{number}.json" }}
health   = {{ type = "none" }}
"""


def _from_consul(number: int) -> str:
    return f"""
[services.consul{number}]
address  = "{lab.VIP}"
port     = {20_000 + number}
provider = {{ name = "consul", service = "web", url = "http://127.0.0.1:{AGENT_PORT}" }}
health   = {{ type = "none" }}
"""


def _until(condition: Callable[[], bool], what: str, *, step: float = STEP) -> float:
    """Wait; return the time at which it was so, to `step` seconds."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {LIMIT:g} s")
        time.sleep(step)
    return time.monotonic()


def over_many_services(repetitions: int, note: Note) -> None:
    """10,000 backends over 100 services, from nothing."""
    last = MANY // SERVICES - 1
    with site([MANY // SERVICES] * SERVICES) as many:
        many.start()
        for _ in range(repetitions):
            cpu, began = many.cpu(), many.write()
            ended = _until(many.settled, "all are in", step=LOOK)
            note("in 100 services: all in, ms", 1000 * (ended - began))
            note("in 100 services: CPU of the daemon, ms", 1000 * (many.cpu() - cpu))
            assert many.is_active(last)
            began = many.write_one(0, last)
            ended = _until(lambda: not many.is_active(last), "one is out")
            note("in 100 services: one backend out, ms", 1000 * (ended - began))
            many.write([0] * SERVICES)
            _until(lambda: many.active() == 0, "all are out")
        many.write()
        _until(many.settled, "all are in again")
        for key, what in (("VmRSS", "memory, MiB"), ("VmHWM", "its peak, MiB")):
            note(f"in 100 services: {what}", many.memory()[key])


def in_one_service(repetitions: int, note: Note) -> None:
    """10,000 backends of one service, and another one beside it that changes meanwhile."""
    whole = table_size([1] * MANY)
    with site([MANY, 2]) as one:
        one.start()
        for _ in range(repetitions):
            one.write([0, 2])
            _until(lambda: one.active() == 2, "only the small service is left")
            cpu, began = one.cpu(), one.write()
            note("in one service: all in, ms", 1000 * (_until(one.settled, "all") - began))
            ended = _until(lambda: max(one.tables()) >= whole, "the table of its own size")
            note("in one service: consistent table in, ms", 1000 * (ended - began))
            note("in one service: CPU of the daemon, ms", 1000 * (one.cpu() - cpu))
            table = one.table_of(1)
            began = one.write_one(0, MANY - 1)
            ended = _until(lambda: one.active() == MANY + 1, "one is out")
            note("in one service: one backend out, ms", 1000 * (ended - began))
            note("in one service: places written for it", (one.table_of(1) != table).sum())
            began = one.write_one(1, 1)
            ended = _until(lambda: one.active() == MANY, "one of the small service is out")
            note("beside it, while its table is filled: one out, ms", 1000 * (ended - began))
            _until(partial(one.differs, 1, table, 200), "it is consistent again")
        for key, what in (("VmRSS", "memory, MiB"), ("VmHWM", "its peak, MiB")):
            note(f"in one service: {what}", one.memory()[key])


def in_a_service_of_650(repetitions: int, note: Note) -> None:
    """One backend of 650 comes and goes."""
    with site([MIDDLE]) as one:
        one.start()
        one.write()
        _until(one.settled, "all")
        for _ in range(repetitions):
            table = one.table_of(1)
            assert one.is_active(MIDDLE - 1)
            began = one.write_one(0, MIDDLE - 1)
            ended = _until(lambda: not one.is_active(MIDDLE - 1), "one is out")
            note("of 650: one backend out, ms", 1000 * (ended - began))
            note("of 650: places written for it, %", 100 * (one.table_of(1) != table).mean())
            began = one.write_one(0, MIDDLE)
            ended = _until(partial(one.equals, 1, table), "it is in")
            note("of 650: one backend in, ms", 1000 * (ended - began))


def beside_hanging_ones(repetitions: int, note: Note) -> None:
    """One backend of a small service, alone and beside ten providers that hang for ever."""
    for count in BESIDE:
        hanging = "".join(_from_consul(number) for number in range(count))
        with site([3], services=hanging) as small, _silence(small):
            small.start()
            small.write()
            _until(small.settled, "all")
            for _ in range(repetitions):
                began = small.write_one(0, 2)
                ended = _until(lambda: small.active() == 2, "one is out")
                what = f"beside {count or 'no'} hanging providers: one backend out, ms"
                note(what, 1000 * (ended - began))
                small.write()
                _until(small.settled, "all")


@contextlib.contextmanager
def _silence(some: Site) -> Iterator[None]:
    """A server on the load balancer that takes connections and never says anything."""
    with some.balancer.lab.lb.entered():
        server = socket.create_server(("127.0.0.1", AGENT_PORT), backlog=HANGING)
    with server:
        yield


def from_consul(repetitions: int, note: Note) -> None:
    """An instance comes and goes, in an agent that behaves as Consul does (that of the tests)."""
    fake = FakeConsul()
    fake.port = AGENT_PORT
    with site([2], services=_from_consul(0)) as some:
        with some.balancer.lab.lb.entered():
            fake.start()
        try:
            some.start()
            some.write()
            for number in (1, 2):
                fake.register(_instance(number))
            _until(lambda: some.active() == 4, "all")
            for _ in range(repetitions):
                began = time.monotonic()
                fake.deregister("web-2")
                note("consul: instance gone, out of the map, ms", _since(began, some, 3))
                began = time.monotonic()
                fake.register(_instance(2))
                note("consul: instance registered, in the map, ms", _since(began, some, 4))
        finally:
            fake.stop()


def _instance(number: int) -> dict[str, object]:
    return {"Name": "web", "ID": f"web-{number}", "Address": f"10.17.0.{number}", "Port": 80}


def _since(began: float, some: Site, active: int) -> float:
    """Wait for so many active backends; return milliseconds since `began`."""
    ended = _until(lambda: some.active() == active, f"{active} are active")
    return 1000 * (ended - began)


def measure(repetitions: int, which: str, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Return figures by what was measured; only of those parts whose name contains `which`."""
    found: dict[str, list[float]] = {}

    def note(what: str, figure: float) -> None:
        found.setdefault(what, []).append(figure)
        say(f"{what}: {figure:.1f}")

    for part in PARTS:
        if which in part.__name__:
            part(repetitions, note)
    return found


PARTS = (over_many_services, in_one_service, in_a_service_of_650, beside_hanging_ones, from_consul)
