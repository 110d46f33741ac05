"""A backend for demonstrations and tests: HTTP and a UDP echo that say which backend answers.

Run as a script by its path, on the standard library alone, so that it starts at once:

    python servers.py NAME --http 8080 --udp 9000

`GET /healthz` answers 200, `GET /bytes/N` N bytes, anything else the backend's name; the header
`X-Backend` holds the name in each. A datagram comes back with `NAME ` put before it. When it
serves, it prints `ready`. It is no web server: it reads requests without a body, and trusts them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from typing import cast


class Http(asyncio.Protocol):
    """One connection: requests one after the other, kept alive unless the client says otherwise."""

    def __init__(self, name: str) -> None:
        self._name = name
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
        body = self._body(request.split(b" ", 2)[1].decode("latin-1"))
        closes = b"\r\nconnection: close" in request.lower()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nX-Backend: {self._name}\r\n"
            f"Connection: {'close' if closes else 'keep-alive'}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        if closes:
            self._transport.close()

    def _body(self, path: str) -> bytes:
        if path.startswith("/bytes/"):
            return b"x" * int(path.removeprefix("/bytes/"))
        return f"{'ok' if path == '/healthz' else self._name}\n".encode()


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


async def serve(name: str, address: str, http: int | None, udp: int | None) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()
    if http is not None:
        await loop.create_server(
            lambda: Http(name), address, http, backlog=4096, reuse_address=True
        )
    if udp is not None:
        await loop.create_datagram_endpoint(lambda: UdpEcho(name), (address, udp))
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--http", type=int)
    parser.add_argument("--udp", type=int)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(**vars(arguments)))


if __name__ == "__main__":
    main()
