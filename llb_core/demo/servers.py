"""A backend for demonstrations and tests: HTTP and a UDP echo that say which backend answers.

Run as a script by its path, on the standard library alone, so that it starts at once:

    python servers.py NAME --http 8080 --udp 9000

`GET /healthz` answers 200 (after SIGUSR1 503, after the next one 200 again), `GET /bytes/N` N
bytes, `GET /say/TEXT` the text, anything else the backend's name; the header `X-Backend` holds the
name in each. A datagram comes back with `NAME ` put before it. When it serves, it prints `ready`.
It is no web server: it reads requests without a body, and trusts them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import signal
import socket
from dataclasses import dataclass
from typing import cast


@dataclass
class Backend:
    """What all connections of one server share."""

    name: str
    is_well: bool = True

    def turn(self) -> None:
        """Fall ill, or get well again, as far as `/healthz` tells."""
        self.is_well = not self.is_well


class Http(asyncio.Protocol):
    """One connection: requests one after the other, kept alive unless the client says otherwise."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            request, self._rest = self._rest.split(b"\r\n\r\n", 1)
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        assert self._transport is not None
        status, body = self._body(request.split(b" ", 2)[1].decode("latin-1"))
        closes = b"\r\nconnection: close" in request.lower()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nX-Backend: {self._backend.name}\r\n"
            f"Connection: {'close' if closes else 'keep-alive'}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        if closes:
            self._transport.close()

    def _body(self, path: str) -> tuple[str, bytes]:
        if path == "/healthz":
            return ("200 OK", b"ok\n") if self._backend.is_well else ("503 Ill", b"ill\n")
        if path.startswith("/bytes/"):
            return "200 OK", b"x" * int(path.removeprefix("/bytes/"))
        if path.startswith("/say/"):
            return "200 OK", path.removeprefix("/say/").encode()
        return "200 OK", f"{self._backend.name}\n".encode()


class UdpEcho(asyncio.DatagramProtocol):
    """Sends each datagram back with the backend's name before it."""

    def __init__(self, name: str) -> None:
        self._prefix = f"{name} ".encode()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(self._prefix + data, addr)


def datagram_socket(address: str, port: int) -> socket.socket:
    """A bound socket, of one family alone: otherwise `::` would take IPv4's datagrams, too."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((address, port))
    return made


async def serve(name: str, addresses: list[str], http: int | None, udp: int | None) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()
    backend = Backend(name)
    loop.add_signal_handler(signal.SIGUSR1, backend.turn)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if http is not None:
        await loop.create_server(
            lambda: Http(backend), addresses, http, backlog=4096, reuse_address=True
        )
    if udp is not None:
        for address in addresses:
            await loop.create_datagram_endpoint(
                lambda: UdpEcho(name), sock=datagram_socket(address, udp)
            )
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--addresses", nargs="+", default=["0.0.0.0", "::"])
    parser.add_argument("--http", type=int)
    parser.add_argument("--udp", type=int)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(**vars(arguments)))


if __name__ == "__main__":
    main()
