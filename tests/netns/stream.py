"""A stream without end in each direction of a connection, checked byte for byte at both ends.

Run as a script by its path, on the standard library alone, it is the server:

    python stream.py NAME PORT…

It listens at these ports on every address, prints `ready`, and sends whoever connects its name in a
line and then its stream, at a steady pace. What comes must be the stream of `client`: at the first
byte that is not, it resets the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import sys

PERIOD = 300_007
BLOCK = 8_192
PAUSE = 0.02
"""Seconds between two blocks."""


class Stream:
    """The bytes that an end sends, by its name: the same again and again, from any place on."""

    def __init__(self, name: str) -> None:
        once = random.Random(name).randbytes(PERIOD)
        self._twice = once + once
        self.place = 0

    def next(self, size: int) -> bytes:
        """The following bytes, no more than a period at once."""
        start = self.place % PERIOD
        self.place += size
        return self._twice[start : start + size]


async def _send(writer: asyncio.StreamWriter, name: str) -> None:
    writer.write(f"{name}\n".encode())
    stream = Stream(name)
    while True:
        writer.write(stream.next(BLOCK))
        await writer.drain()
        await asyncio.sleep(PAUSE)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    sending = asyncio.create_task(_send(writer, name))
    stream = Stream("client")
    with contextlib.suppress(OSError):
        while data := await reader.read(BLOCK):
            if data != stream.next(len(data)):
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                break
    sending.cancel()
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await sending
    writer.close()


async def main() -> None:
    """Listen until killed."""
    name, *ports = sys.argv[1:]
    for port in map(int, ports):
        await asyncio.start_server(lambda r, w: _serve(r, w, name), ["0.0.0.0", "::"], port)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
