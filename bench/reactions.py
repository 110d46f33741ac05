"""Measure how soon the daemon reacts, and how large it is: the real daemon, on real maps.

Read off the pinned maps, not off the daemon: a change counts once the classifier would act on it.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.processes import cpu_of, resident
from llb_core import config
from llb_core.datapath import Datapath
from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from llb_core.model import BackendMode

STEP = 0.001
LIMIT = 10.0


@contextlib.contextmanager
def running(network: Network) -> Iterator[lab.Balancer]:
    """A lab with three backends and the daemon."""
    hosts = lab.build(network)
    hosts.start_backends()
    with tempfile.TemporaryDirectory(prefix="llb-bench-") as folder:
        balancer = lab.Balancer(hosts, Path(folder))
        balancer.write_config()
        balancer.write_backends(hosts.backends)
        try:
            yield balancer
        finally:
            balancer.remove()


class Maps:
    """What the classifier goes by, read off the pinned maps."""

    def __init__(self, balancer: lab.Balancer) -> None:
        settings = config.load(balancer.config).loadbalancer
        self._family = Datapath.open_reading(settings).families[4]

    def active(self) -> set[str]:
        """The backends on the web port that take new connections."""
        installed = self._family.installed()
        return {
            str(backend.endpoint)
            for backend in installed.backends.values()
            if backend.mode is BackendMode.ACTIVE and backend.endpoint.port == lab.BACKEND_PORT
        }

    def seconds_until(self, wanted: set[str]) -> float:
        """Wait until exactly these are active; return how long that took."""
        began = time.monotonic()
        while self.active() != wanted:
            if time.monotonic() - began > LIMIT:
                raise TimeoutError(f"still {self.active()}, not {wanted}")
            time.sleep(STEP)
        return time.monotonic() - began


def measure(repetitions: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Return milliseconds by what was measured, and MiB of the daemon's memory."""
    found: dict[str, list[float]] = {}

    def note(what: str, figure: float) -> None:
        found.setdefault(what, []).append(figure)
        say(f"{what}: {figure:.3g}")

    with Network() as network, running(network) as balancer:
        began = time.monotonic()
        balancer.start()
        note("start to ready, ms", 1000 * (time.monotonic() - began))
        maps = Maps(balancer)
        backends = balancer.lab.backends
        everyone = {backend.endpoint for backend in backends}
        maps.seconds_until(everyone)
        gone = backends[1]
        others = everyone - {gone.endpoint}
        for _ in range(repetitions):
            balancer.write_backends([each for each in backends if each is not gone])
            note("file changed, backend out of the map, ms", 1000 * maps.seconds_until(others))
            balancer.write_backends(backends)
            note("file changed, backend checked and in, ms", 1000 * maps.seconds_until(everyone))
            gone.kill()
            note("process died, backend out of the map, ms", 1000 * maps.seconds_until(others))
            gone.start()
            maps.seconds_until(everyone)
            gone.host.ip("link set eth0 down")
            note("host went silent, backend out of the map, ms", 1000 * maps.seconds_until(others))
            gone.host.ip("link set eth0 up", "route replace default via 10.0.0.1")
            maps.seconds_until(everyone)
        addresses = [f"10.0.0.{number}" for number in range(100, 200)]
        gone.host.ip(*(f"addr add {address}/24 dev eth0" for address in addresses))
        balancer.write_addresses(addresses)
        # One check for each: the other service would have its own.
        lab.replace(balancer.folder / "udp.toml", "backends = []\n")
        maps.seconds_until({lab.endpoint(each) for each in addresses})
        wait_until(lambda: balancer.control.get("/status")["collection"], 5, "it has collected")
        assert balancer.daemon is not None
        pid = balancer.daemon.pid
        note("memory, 100 backends, MiB", resident(pid, "VmRSS"))
        note("its peak, MiB", resident(pid, "VmHWM"))
        for what, kind in (
            ("checked by HTTP every 500 ms", "http"),
            ("checked by TCP every 500 ms", "tcp"),
            ("not checked", "none"),
        ):
            if kind != "http":
                reload(balancer, health=f'type = "{kind}"')
            for _ in range(repetitions):
                note(f"processor, 100 backends {what}, %", processor(pid))
                with as_between_hosts(network, pid):
                    note(f"... as between hosts: 100 {what}, %", processor(pid))
    return found


@contextlib.contextmanager
def as_between_hosts(network: Network, pid: int) -> Iterator[None]:
    """Have the last processor do what there is to do for packets that arrive, and a process run on
    the others. On a veth cable whoever sends would do the receiver's work as well; a backend on
    another machine does its own."""
    processors = sorted(os.sched_getaffinity(0))
    *others, last = processors
    _receive_on(network, 1 << last)
    _run_on(pid, others)
    try:
        yield
    finally:
        _run_on(pid, processors)
        _receive_on(network, 0)


def _receive_on(network: Network, mask: int) -> None:
    queues = "/sys/class/net/*/queues/rx-*/rps_cpus"
    for each in network.namespaces:
        script = f"for queue in {queues}; do echo {mask:x} > $queue; done"
        subprocess.run(["ip", "netns", "exec", each.name, "sh", "-c", script], check=True)


def _run_on(pid: int, processors: Sequence[int]) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # It has ended meanwhile.
            os.sched_setaffinity(int(task.name), processors)


def reload(balancer: lab.Balancer, **changes: str) -> None:
    """Have the daemon take over a changed configuration, and wait until it has."""

    def reloads() -> int:
        return balancer.log.read_text().count('"reloaded ')

    before = reloads()
    balancer.write_config(**changes)
    balancer.reload()
    wait_until(lambda: reloads() > before, 10, "it has reloaded")


def processor(pid: int, seconds: float = 10.0) -> float:
    """The share of one processor, in percent, that a process takes, its threads included."""
    began, before = time.monotonic(), cpu_of(pid)
    time.sleep(seconds)
    return 100 * (cpu_of(pid) - before) / (time.monotonic() - began)


def _short(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 10 else f"{figure:.1f}"


def table(found: dict[str, list[float]]) -> str:
    """A table in Markdown: medians, least and most."""
    rows = ["| | median | least | most |", "|---|---:|---:|---:|"]
    rows += [
        f"| {what} | {' | '.join(map(_short, (statistics.median(all_), min(all_), max(all_))))} |"
        for what, all_ in found.items()
    ]
    return "\n".join(rows)
