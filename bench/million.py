"""Measure real traffic through tables that hold a million connections, while these are collected.

The daemon sets up a lab of namespaces, and its first passes go over the million. Then it ends, and
its collection is run here, one pass right after the other, so that there is nothing but passes to
notice. The million are established connections of a service of its own, written into the tables;
the traffic beside them is real: new connections, requests on kept ones, transfers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from bench.observing import LIMIT, OF_ONE_SERVICE, fill
from llb_core import config
from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.family import Family
from llb_core.datapath.layout import ANSWERED, ASSURED, ConnectionState
from llb_core.demo import lab
from llb_core.demo.network import Network, Process, wait_until
from llb_core.map_sync import MapSync

CONNECTIONS = 1_000_000
ROOM = 65_536
"""For the traffic beside them."""
OVER = 8
"""One in so many is over, in the passes that remove some."""
AN_HOUR = 3600
CLOSED = ConnectionState.CLOSED | ANSWERED | ASSURED
BULK_PORT = 7000
BULK = f"""
[services.bulk]
address  = "{{vip}}"
port     = {BULK_PORT}
provider = {{{{ name = "static", path = "bulk.json" }}}}
health   = {{{{ type = "none" }}}}
"""
NOBODY, BUSY, PASSES, REMOVING = (
    "nobody collects",
    "nobody collects, something else is as busy",
    "passes, one after the other",
    "the same, one in 8 being over",
)

Say = Callable[[str], None]


@dataclass
class Found:
    """What was noted, in seconds."""

    passes: dict[str, list[float]] = field(default_factory=dict)
    """How long the passes of a kind took."""
    asked: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """By what was asked and what went on meanwhile: how long each answer took."""


def measure(
    repetitions: int,
    say: Say,
    *,
    families: Sequence[int] = (4, 6),
    connections: int = CONNECTIONS,
    seconds: float = 3.0,
) -> dict[int, Found]:
    """Return what was found, by family; SystemExit where anything failed. Each of what goes on
    lasts for so many seconds, each time."""
    return {family: _measure(family, connections, repetitions, seconds, say) for family in families}


def _measure(family: int, connections: int, repetitions: int, seconds: float, say: Say) -> Found:
    found = Found()
    with _site(family, connections) as balancer:
        name = f"IPv{family}"
        settings = config.load(balancer.config).loadbalancer
        with contextlib.closing(Family.open(settings, family)) as opened:
            # The daemon takes away what it meets of which only one half is in.
            is_full = partial(fill, opened, connections, service="bulk")
            wait_until(is_full, LIMIT, "all are in")
            wait_until(lambda: _counted(balancer) >= connections, LIMIT, "the daemon counts them")
            say(f"{name}: {_counted(balancer):,} connections, as the daemon counts them")
            if balancer.stop():
                raise SystemExit(f"the daemon failed: {balancer.last_words()}")
            sync = MapSync(opened)
            sync.collect()
            with _asking(balancer.lab) as answers:
                spans = [
                    span
                    for _ in range(repetitions)
                    for span in _spans(sync, opened, connections, seconds, found)
                ]
            if not fill(opened, connections, service="bulk"):
                raise SystemExit("connections that stood are gone")
    for kind, times in answers.items():
        for what, begun, ended in spans:
            inside = [last - first for first, last in times if begun <= first and last <= ended]
            found.asked.setdefault((kind, what), []).extend(inside)
        say(f"{name}: {len(times):,} answered of {kind}")
    return found


@contextlib.contextmanager
def _site(family: int, connections: int) -> Iterator[lab.Balancer]:
    """A daemon with three backends that are there, and forty that carry the million."""
    with Network() as network, tempfile.TemporaryDirectory(prefix="llb-bench-") as folder:
        hosts = lab.build(network, family=family)
        hosts.start_backends()
        balancer = lab.Balancer(hosts, Path(folder))
        first = ipaddress.ip_address(hosts.addresses.backend(100))
        carriers = [{"address": str(first + n), "port": 8080} for n in range(OF_ONE_SERVICE)]
        (balancer.folder / "bulk.json").write_text(json.dumps({"backends": carriers}))
        balancer.write_backends(hosts.backends)
        balancer.write_config(
            health='type = "none"',
            settings=f"max_connections = {connections + ROOM}",
            extra=BULK.format(vip=hosts.vip),
        )
        try:
            balancer.start()
            wait_until(lambda: all(map(balancer.is_active, hosts.backends)), LIMIT, "all serve")
            yield balancer
        finally:
            balancer.remove()


def _counted(balancer: lab.Balancer) -> int:
    known = balancer.control.get("/backends")["backends"]
    return sum(each["connections"] for each in known if each["service"] == "bulk")


@contextlib.contextmanager
def _asking(hosts: lab.Lab) -> Iterator[dict[str, list[tuple[float, float]]]]:
    """Ask as long as the context lasts; what was noted is in what it yields, afterwards."""
    script = Path(__file__).with_name("asking.py")
    process = hosts.client.start(
        *(sys.executable, "-I", "-S", script, hosts.vip, str(lab.PORT)),
        stdin=subprocess.PIPE,
        stderr=None,
    )
    _line(process)
    noted: dict[str, list[tuple[float, float]]] = {}
    yield noted
    result = json.loads(process.communicate("\n", timeout=LIMIT)[0])
    if result["failed"]:
        raise SystemExit(f"failed: {result['failed']}")
    noted.update(result["noted"])


def _line(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _spans(
    sync: MapSync, family: Family, connections: int, seconds: float, found: Found
) -> Iterator[tuple[str, float, float]]:
    """Do each of what there is to notice for a while; yield which it was, and from when to when."""

    def during(
        what: str, work: Callable[[], object], *, once: bool = False
    ) -> tuple[str, float, float]:
        begun = time.monotonic()
        work()
        while not once and time.monotonic() < begun + seconds:
            work()
        return what, begun, time.monotonic()

    def collect(what: str, least: int) -> None:
        report = sync.collect()
        if report.removed < least or report.connections + report.removed < connections:
            raise SystemExit(f"{what}: {report.connections} counted, {report.removed} removed")
        found.passes.setdefault(what, []).append(report.seconds)

    yield during(NOBODY, partial(time.sleep, seconds))
    yield during(BUSY, lambda: sum(range(10_000)))
    yield during(PASSES, partial(collect, PASSES, 0))
    over = _age(family)
    yield during(REMOVING, partial(collect, REMOVING, over), once=True)
    if not fill(family, connections, service="bulk"):
        raise SystemExit("more was removed than was over")


def _age(family: Family) -> int:
    """Let one in so many of the million be over: closed an hour ago. Return how many that are."""
    aged = 0
    for table, port, of_service in (
        ("dnat_table", "sport", "dport"),
        ("snat_table", "new_dport", "new_sport"),
    ):
        writer, aged = MapWriter.of(family.maps[table]), 0
        for keys, halves in writer.chunks():
            ends = keys if port in (keys.dtype.names or ()) else halves
            chosen = (ends[port] % OVER == 0) & (ends[of_service] == BULK_PORT)
            keys, halves = keys[chosen], halves[chosen]
            halves["state"] = CLOSED
            halves["seen"] -= np.uint32(AN_HOUR * family.ticks_per_second)
            if len(keys):
                writer.update_batch(keys, halves)
            aged += len(keys)
    return aged


COLUMNS = ("meanwhile", "a pass, s", *(
    f"{kind}: {what}"
    for kind in ("new connection", "kept connection", "transfer of 1 MiB")
    for what in ("answers", "median, ms", "p99, ms")
))  # fmt: skip


def table(found: dict[int, Found]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for family, each in found.items():
        for what in (NOBODY, BUSY, PASSES, REMOVING):
            passes = each.passes.get(what)
            cells = [f"{statistics.median(passes):.2f}" if passes else ""]
            for kind in ("new", "kept", "transfer"):
                times = sorted(each.asked[kind, what])
                cells += [f"{len(times):,}", _milliseconds(times, 50), _milliseconds(times, 99)]
            lines.append(f"| IPv{family}: {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _milliseconds(times: Sequence[float], percentile: int) -> str:
    """Return a percentile of times in seconds."""
    return f"{1000 * times[(len(times) - 1) * percentile // 100]:.2f}" if times else "-"
