"""Backends for tests, on real sockets: one that answers, one that refuses, one that is silent."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from llb_core.model import Endpoint

LOOPBACK = ipaddress.ip_address("127.0.0.1")


class Answering:
    """Send `answer` to every request, and remember the requests and the ports they came from."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.ports: list[int] = []
        self.endpoint = Endpoint(LOOPBACK, 1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ports.append(writer.get_extra_info("peername")[1])
        try:
            if request := await reader.read(4096):
                self.requests.append(request)
                writer.write(self.answer)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()


@asynccontextmanager
async def answering(
    answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n", *, port: int = 0
) -> AsyncIterator[Answering]:
    backend = Answering(answer)
    server = await asyncio.start_server(backend.serve, str(LOOPBACK), port)
    backend.endpoint = Endpoint(LOOPBACK, server.sockets[0].getsockname()[1])
    async with server:
        yield backend


@contextmanager
def refusing() -> Iterator[Endpoint]:
    """A port that is taken, on which nobody listens."""
    with socket.socket() as taken:
        taken.bind((str(LOOPBACK), 0))
        yield Endpoint(LOOPBACK, taken.getsockname()[1])


@contextmanager
def silent(port: int = 0) -> Iterator[Endpoint]:
    """A port whose queue is full: the kernel drops a SYN, as a host does that has gone away."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(LOOPBACK), port))
        listener.listen(0)
        queued = []
        try:
            for _ in range(3):
                waiting = socket.socket()
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
                queued.append(waiting)
            yield Endpoint(LOOPBACK, listener.getsockname()[1])
        finally:
            for waiting in queued:
                waiting.close()
