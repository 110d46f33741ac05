"""Transfers in both directions at once over one connection, and whether every byte arrived.

A server reads a number of four bytes, then all that the client sends; meanwhile it sends what
follows from the number. Behind it goes the digest of what it has read, once the client has ended.
"""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from llb_core.demo import lab

DIGEST = 32
PATIENCE = 120
"""Seconds that nothing may come on a connection."""


def payload(number: int, size: int) -> bytes:
    """Bytes that no other number has."""
    return random.Random(number).randbytes(size)


@contextmanager
def serving(hosts: lab.Lab, port: int, size: int) -> Iterator[None]:
    """Exchange with whoever connects to a backend's port, as long as the context lasts."""
    with ExitStack() as stack:
        for each in hosts.backends:
            listener = stack.enter_context(each.host.socket(family=hosts.family))
            listener.settimeout(None)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((each.address, port))
            listener.listen(64)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            _thread(lambda listener=listener: _accept(listener, size))
        yield


def exchange(sock: socket.socket, number: int, size: int) -> None:
    """Send and receive over a connected socket to its end; AssertionError where a byte is wrong."""
    sock.settimeout(PATIENCE)
    sent = payload(number, size)

    def send() -> None:
        sock.sendall(number.to_bytes(4, "big") + sent)
        sock.shutdown(socket.SHUT_WR)

    sender = _thread(send)
    received = _rest(sock)
    sender.join(PATIENCE)
    assert len(received) == size + DIGEST, f"{number}: {len(received)} bytes have come"
    assert received[:size] == payload(~number & 0xFFFFFFFF, size), f"{number}: to the client"
    assert received[size:] == hashlib.sha256(sent).digest(), f"{number}: to the backend"


def _accept(listener: socket.socket, size: int) -> None:
    while True:
        try:
            served, _ = listener.accept()
        except OSError:  # it was shut down
            return
        _thread(lambda served=served: _serve(served, size))


def _serve(served: socket.socket, size: int) -> None:
    with served:
        served.settimeout(PATIENCE)
        number = int.from_bytes(served.recv(4, socket.MSG_WAITALL), "big")
        sender = _thread(lambda: served.sendall(payload(~number & 0xFFFFFFFF, size)))
        received = _rest(served)
        sender.join(PATIENCE)
        served.sendall(hashlib.sha256(received).digest())


def _rest(sock: socket.socket) -> bytes:
    received = bytearray()
    while chunk := sock.recv(1 << 18):
        received += chunk
    return bytes(received)


def _thread(target: Callable[[], object]) -> threading.Thread:
    started = threading.Thread(target=target, daemon=True)
    started.start()
    return started
