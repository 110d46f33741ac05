"""The kinds of traffic that are put on a way, and what is measured of each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.network.way import HTTP, IPERF, UDP, Way
from llb_core.errors import HostError


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    title: str
    unit: str
    kind: str
    """Which table: `rate`, of which more is better, or `latency` or `cpu`, of which less is."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one measurement gave: a figure for each row of its load, and the pieces of work done."""

    figures: tuple[float, ...]
    pieces: float = 0


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of traffic, and the rows that it gives figures for."""

    name: str
    rows: tuple[Row, ...]
    measure: Callable[[Way, float], Outcome]
    piece: str = ""
    """A piece of its work, which CPU time is counted by; none, and it isn't."""
    transport: str = "tcp"

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The rows, with that of CPU time as the last one where it is counted."""
        cpu = Row(self.name, f"µs a {self.piece}", "cpu")
        return (*self.rows, cpu) if self.piece else self.rows


def _throughput(way: Way, seconds: float, *more: str) -> Outcome:
    """Gbit/s of one TCP connection, default offloads; its pieces are Mbit."""
    done = way.client.run(
        *("iperf3", "--client", way.address, "--port", str(IPERF), "--json"),
        *("--time", f"{max(1, round(seconds))}", "--congestion", "cubic", *more),
    )
    received = json.loads(done.stdout)["end"]["sum_received"]
    return Outcome((received["bits_per_second"] / 1e9,), received["bytes"] * 8 / 1e6)


def _kept_requests(way: Way, seconds: float) -> Outcome:
    """Thousand requests a second over 32 connections that stay."""
    script = way.tools / "requests.lua"
    if not script.exists():
        script.write_text(
            "function done(s, l, r)\n  local e = s.errors\n"
            "  io.write('REQUESTS ', s.requests, ' ', s.duration / 1e6, ' ',"
            " e.connect + e.read + e.write + e.status + e.timeout, '\\n')\nend\n"
        )
    url = f"http://{way.address}:{HTTP}/"
    done = way.client.run(
        *("wrk", "-t1", "-c32", f"-d{max(1, round(seconds))}s", "-s", script, url)
    )
    requests, lasted, failed = map(float, done.stdout.rsplit("REQUESTS", 1)[1].split())
    _none_failed(way, failed)
    return Outcome((requests / lasted / 1e3,), requests)


def _connections(way: Way, seconds: float, closer: str) -> Outcome:
    """Thousand connections a second, 64 at once; each asks one HTTP request."""
    program = way.tools / "connections"
    done = way.client.run(program, way.address, str(HTTP), f"{seconds:g}", "64", closer)
    result = json.loads(done.stdout)
    _none_failed(way, result["failed"])
    return Outcome((result["done"] / result["seconds"] / 1e3,), result["done"])


def _small_packets(way: Way, seconds: float) -> Outcome:
    """Thousand UDP packets a second that arrive: 16 flows, 18 bytes each."""
    before = _counted(way)
    program = way.tools / "datagrams"
    way.client.run(program, "send", way.address, str(UDP), f"{seconds:g}", "18", "16")
    time.sleep(0.1)  # what is on the way arrives; there is nothing to wait for
    arrived = _counted(way) - before
    return Outcome((arrived / seconds / 1e3,), arrived)


def _latency(way: Way, seconds: float, connection: str) -> Outcome:
    """Microseconds from a request to its answer, one at a time: half stay below, and 99 of 100."""
    done = way.client.run(way.tools / "latency", way.address, str(HTTP), f"{seconds:g}", connection)
    result = json.loads(done.stdout)
    _none_failed(way, result["failed"])
    return Outcome((result["p50"], result["p99"]))


def _counted(way: Way) -> int:
    assert way.counter.stdin is not None
    assert way.counter.stdout is not None
    way.counter.stdin.write("\n")
    way.counter.stdin.flush()
    return int(way.counter.stdout.readline())


def _none_failed(way: Way, number: float) -> None:
    if number:
        raise HostError(f"{way.name}: {number:.0f} errors: the figure would mean nothing")


def _loads() -> Iterator[Load]:
    for name, more in (
        ("TCP throughput, to the backend", ()),
        ("TCP throughput, to the client", ("--reverse",)),
    ):
        yield Load(
            name,
            (Row(name, "Gbit/s", "rate"),),
            lambda way, seconds, more=more: _throughput(way, seconds, *more),  # type: ignore[misc]
            piece="Mbit",
        )
    name = "requests on kept connections"
    yield Load(name, (Row(name, "thousand/s", "rate"),), _kept_requests, piece="request")
    for name, closer in (
        ("connections, the backend closes", "server"),
        ("connections, the client closes", "client"),
    ):
        yield Load(
            name,
            (Row(name, "thousand/s", "rate"),),
            lambda way, seconds, closer=closer: _connections(way, seconds, closer),  # type: ignore[misc]
            piece="connection",
        )
    name = "small UDP packets"
    yield Load(
        name,
        (Row(name, "thousand/s", "rate"),),
        _small_packets,
        piece="packet",
        transport="udp",
    )
    for name, connection in (
        ("latency on a kept connection", "kept"),
        ("latency with a new connection", "new"),
    ):
        yield Load(
            name,
            (Row(f"{name}, p50", "µs", "latency"), Row(f"{name}, p99", "µs", "latency")),
            lambda way, seconds, connection=connection: _latency(way, seconds, connection),  # type: ignore[misc]
        )


LOADS = tuple(_loads())
