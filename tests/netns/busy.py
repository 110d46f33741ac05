"""Hold many connections and keep asking on each of them, until told to stop.

Run as a script by its path, on the standard library alone:

    python busy.py ADDRESS PORT NUMBER

It opens the connections, prints `open`, asks for a word of its own on each again and again, and at
a line on its standard input prints as JSON how many answers there were, the least on one of them,
and what went wrong. At the line `count` it begins to count anew, and says so.
"""

from __future__ import annotations

import asyncio
import collections
import json
import resource
import sys

PAUSE = 0.5
"""Seconds between two questions on one connection."""
PATIENCE = 30


async def main() -> None:
    """Open, ask, and tell."""
    address, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    room = asyncio.Semaphore(100)
    errors: collections.Counter[str] = collections.Counter()
    answers = [0] * number
    is_over = asyncio.Event()

    async def begin() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with room:
            return await asyncio.open_connection(address, port)

    async def talk(place: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = 0
        try:
            await asyncio.sleep(PAUSE * place / number)
            while not is_over.is_set():
                word = f"{place}-{turn}"
                async with asyncio.timeout(PATIENCE):
                    writer.write(f"GET /say/{word} HTTP/1.1\r\nHost: busy\r\n\r\n".encode())
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
                    said = (await reader.readexactly(int(headers["Content-Length"]))).decode()
                if said != word:
                    errors[f"{said!r} for {word!r}"] += 1
                    return
                turn += 1
                answers[place] += 1
                await asyncio.sleep(PAUSE)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            errors[repr(error)] += 1

    streams = await asyncio.gather(*(begin() for _ in range(number)))
    talks = [asyncio.create_task(talk(n, *stream)) for n, stream in enumerate(streams)]
    print("open", flush=True)
    while (await asyncio.to_thread(sys.stdin.readline)).strip() == "count":
        answers[:] = [0] * number
        print("counting", flush=True)
    is_over.set()
    await asyncio.gather(*talks)
    result = {"answers": sum(answers), "least": min(answers), "errors": errors}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
