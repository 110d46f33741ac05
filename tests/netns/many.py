"""Hold many connections from given source ports at once, and see that none is mistaken for another.

Run as a script by its path, on the standard library alone:

    python many.py ADDRESS PORT WHO FIRST_PORT NUMBER

It opens the connections, prints `open`, waits for a line, then says a word of its own on each,
three times, and prints as JSON which backend answered on how many, and what went wrong.
"""

from __future__ import annotations

import asyncio
import collections
import json
import resource
import sys

AT_ONCE = 200
"""Connections that are being opened, or asked, at the same moment."""


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: str) -> str:
    """Have a word said back; the name of the backend, or ValueError for another's word."""
    writer.write(f"GET /say/{word} HTTP/1.1\r\nHost: many\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
    said = (await reader.readexactly(int(headers["Content-Length"]))).decode()
    if said != word:
        raise ValueError(f"{said!r} for {word!r}")
    return headers["X-Backend"]


async def main() -> None:
    """Open, wait, ask, and tell."""
    address, port, who, first, number = sys.argv[1], *sys.argv[2:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    room = asyncio.Semaphore(AT_ONCE)
    streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
    errors: collections.Counter[str] = collections.Counter()
    backends: collections.Counter[str] = collections.Counter()

    async def begin(source: int) -> None:
        async with room:
            try:
                streams[source] = await asyncio.open_connection(
                    address, int(port), local_addr=("::" if ":" in address else "0.0.0.0", source)
                )
            except OSError as error:
                errors[f"connect: {error}"] += 1

    async def talk(source: int) -> None:
        async with room:
            try:
                async with asyncio.timeout(20):
                    names = {await ask(*streams[source], f"{who}-{source}-{n}") for n in range(3)}
                if len(names) != 1:
                    errors[f"one connection, backends {sorted(names)}"] += 1
                backends[names.pop()] += 1
            except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
                errors[f"ask: {error!r}"] += 1

    sources = range(int(first), int(first) + int(number))
    await asyncio.gather(*map(begin, sources))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*map(talk, list(streams)))
    print(json.dumps({"backends": backends, "errors": errors}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
