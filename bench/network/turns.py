"""Take every figure: loads and ways in turn, repetition after repetition."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.network.kernel_ways import IPVS, NFTABLES, PLAIN
from bench.network.loads import Load, Row
from bench.network.ours import LLB, LLB_CLSACT
from bench.network.proxies import HAPROXY, NGINX
from bench.network.way import CPUS, Kind, Missing, Way
from llb_core.demo.network import Network
from llb_core.errors import HostError

KINDS = {kind.name: kind for kind in (PLAIN, NFTABLES, IPVS, HAPROXY, NGINX, LLB, LLB_CLSACT)}
NATIVE = Path(__file__).parents[1] / "native"

Say = Callable[[str], None]


@dataclass
class Results:
    """Every figure of every row and way, in the order they were taken."""

    kinds: list[Kind] = field(default_factory=list)
    """What was measured, in the order of the tables."""
    figures: dict[tuple[Row, str], list[float]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    """What a reader of the tables has to know: ways and figures that are left out, and why."""

    def add(self, row: Row, way: str, figure: float) -> None:
        """Keep one figure."""
        self.figures.setdefault((row, way), []).append(figure)

    def median(self, row: Row, way: str) -> float | None:
        """The middle of the repetitions; None where nothing was measured."""
        figures = self.figures.get((row, way))
        return statistics.median(figures) if figures else None


class Processors:
    """How long the machine's CPUs have been busy, from the making of this on."""

    def __init__(self) -> None:
        self._begun, self._idle = time.monotonic(), self._idle_seconds()

    def busy(self) -> float:
        """Seconds, of all CPUs together. A CPU that another guest had counts as not busy."""
        elapsed = time.monotonic() - self._begun
        return max(0.0, CPUS * elapsed - (self._idle_seconds() - self._idle))

    @staticmethod
    def _idle_seconds() -> float:
        # proc(5): user nice system idle iowait irq softirq steal. Idle time is exact, where the
        # other fields are sampled at ticks.
        fields = [
            int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        ]
        return (fields[3] + fields[4] + fields[7]) / os.sysconf("SC_CLK_TCK")


def compile_tools(folder: Path) -> None:
    """Compile the load generators and servers that are written in C."""
    for tool in ("gcc", "iperf3", "wrk", "curl"):
        if shutil.which(tool) is None:
            raise HostError(f"{tool} is missing: scripts/setup dev installs it")
    for source in NATIVE.glob("*.c"):
        subprocess.run(["gcc", "-O2", "-o", folder / source.stem, source], check=True)


def measure(
    kinds: Sequence[Kind], loads: Sequence[Load], repetitions: int, seconds: float, say: Say
) -> Results:
    """Take every figure, the ways in turn, and another one first each time."""
    results = Results()
    with ready_ways(kinds, results, say) as ways:
        resting = Processors()
        time.sleep(1)
        results.remarks.append(
            f"At rest, everything started, {resting.busy() * 1e3:.0f} ms of CPU a second are used: "
            "each figure has its part of them."
        )
        for number, load in itertools.product(range(repetitions), loads):
            turn = number % len(ways)
            for kind, way in ways[turn:] + ways[:turn]:
                if load.transport in kind.transports:
                    say(f"{number + 1}/{repetitions} {take(results, load, way, seconds)}")
    return results


@contextlib.contextmanager
def ready_ways(
    kinds: Sequence[Kind], results: Results, say: Say
) -> Iterator[list[tuple[Kind, Way]]]:
    """Make the ways that can be made here; HostError where none can."""
    with (
        tempfile.TemporaryDirectory(prefix=f"llb-bench-{os.getpid()}-") as folder,
        Network() as network,
        contextlib.ExitStack() as stack,
    ):
        tools = Path(folder)
        compile_tools(tools)
        ways = []
        for kind in kinds:
            try:
                way = stack.enter_context(kind.make(network, tools))
            except Missing as missing:
                results.remarks.append(f"{kind.title} is left out: {missing}.")
                say(results.remarks[-1])
                continue
            way.wait()
            ways.append((kind, way))
        if not ways:
            raise HostError("nothing is left to measure")
        results.kinds = [kind for kind, _ in ways]
        yield ways


def take(results: Results, load: Load, way: Way, seconds: float) -> str:
    """Measure once, and say what came of it; a measurement that failed gives no figure."""
    processors = Processors()
    try:
        outcome = load.measure(way, seconds)
        if load.piece and not outcome.pieces:
            raise HostError(f"{way.name}: not one {load.piece} came through")
    except HostError as error:
        results.remarks.append(f"{load.name}: a repetition is left out: {error}.")
        return results.remarks[-1]
    busy = processors.busy()
    figures = (*outcome.figures, busy * 1e6 / outcome.pieces) if load.piece else outcome.figures
    for row, figure in zip(load.all_rows, figures, strict=True):
        results.add(row, way.name, figure)
    said = (f"{figure:.1f} {row.unit}" for row, figure in zip(load.all_rows, figures, strict=True))
    return f"{load.name}, {way.name}: {', '.join(said)}"
