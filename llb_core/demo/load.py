"""Requests to one address, at a steady rate, and what became of each.

Run as a script by its path, on the standard library alone:

    python load.py 203.0.113.10 80 --rate 400 --workers 16

It reads the name of a phase from each line of its standard input, begins with the first, counts
each request under the phase it was begun in, and prints a line of JSON ten times a second: under
`counts` what became of the requests that ended since the line before, as `{"phase": …, "backend":
"b1", "answered": 3}` or `{"phase": …, "failed": 1, "why": "connection refused"}`; and under `at`
the monotonic time.
An empty line, or the end of the input, ends it once the requests under way are answered.

Half of the workers make a connection for each request; the others keep theirs for `--keep`
requests. A request is never tried twice: what fails is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import sys
import time
from dataclasses import dataclass, field

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REPORT_SECONDS = 0.1


class Failed(Exception):
    """No whole answer came."""


@dataclass
class Load:
    """What is asked for, and the counts since the last report."""

    address: str
    port: int
    rate: float
    workers: int
    keep: int
    timeout: float
    phase: str = ""
    begins: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False
    counts: collections.Counter[tuple[str, str, str]] = field(default_factory=collections.Counter)


async def ask(stream: Stream, closes: bool) -> str:
    """Send one request over an open connection; give the name of the backend that answers."""
    reader, writer = stream
    connection = "close" if closes else "keep-alive"
    writer.write(f"GET / HTTP/1.1\r\nHost: demo\r\nConnection: {connection}\r\n\r\n".encode())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        await reader.readexactly(int(headers["content-length"]))
    except asyncio.IncompleteReadError:
        raise Failed("connection closed without an answer") from None
    if " 200 " not in head[0]:
        raise Failed(head[0])
    return headers["x-backend"]


async def worker(load: Load, number: int) -> None:
    """Ask at this worker's share of the rate until the load is over."""
    await load.begins.wait()
    keep = load.keep if number % 2 else 1
    pause = load.workers / load.rate
    due = time.monotonic() + pause * number / load.workers
    stream: Stream | None = None
    asked = 0
    while not load.is_over:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due = max(due + pause, time.monotonic() - 1)
        phase = load.phase
        try:
            async with asyncio.timeout(load.timeout):
                if stream is None:
                    stream = await asyncio.open_connection(load.address, load.port)
                    asked = 0
                asked += 1
                backend = await ask(stream, closes=asked == keep)
            load.counts[phase, "answered", backend] += 1
            failed = False
        except (OSError, Failed, TimeoutError) as error:
            load.counts[phase, "failed", reason(error)] += 1
            failed = True
        if stream is not None and (failed or asked == keep):
            stream[1].close()
            stream = None
    if stream is not None:
        stream[1].close()


def reason(error: Exception) -> str:
    """Why a request failed, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error)


async def report(load: Load) -> None:
    """Print the counts since the last report, for as long as there is something to wait for."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        print_counts(load)


def print_counts(load: Load) -> None:
    """Print one line and start counting anew."""
    counts = [
        {"phase": phase, outcome: number, "backend" if outcome == "answered" else "why": what}
        for (phase, outcome, what), number in load.counts.items()
    ]
    load.counts.clear()
    print(json.dumps({"at": time.monotonic(), "counts": counts}), flush=True)


async def follow(load: Load) -> None:
    """Take over the phases that the standard input names, to its end."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := (await reader.readline()).strip():
        load.phase = line.decode()
        load.begins.set()
    load.is_over = True
    load.begins.set()


async def run(load: Load) -> None:
    """Send requests until the standard input ends."""
    reporter = asyncio.create_task(report(load))
    async with asyncio.TaskGroup() as group:
        group.create_task(follow(load))
        for number in range(load.workers):
            group.create_task(worker(load, number))
    reporter.cancel()
    print_counts(load)


def main() -> None:
    """Read the command line and send."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=400, help="requests a second")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--keep", type=int, default=20, help="requests on a kept connection")
    parser.add_argument("--timeout", type=float, default=2, help="seconds until one has failed")
    asyncio.run(run(Load(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
