"""The bytes of rtnetlink(7): messages and attributes, as far as LLB reads them itself.

A library takes each message apart whole, at a third of a millisecond; and it does not know every
attribute that we need. What is written goes through the library.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

from llb_core.errors import HostError

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
REQUEST, DUMP = 0x1, 0x300
SOCK_DIAG = 4
"""NETLINK_SOCK_DIAG: the same messages, about sockets (sock_diag(7))."""
_DONE, _ERROR = 3, 2
_TYPE = 0x3FFF
"""Without the flags that say whether an attribute is nested or in network order."""
_LIMIT = 5
"""Seconds to wait for an answer; the kernel gives it before the question's call returns."""


def open_socket(protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    """Open a socket to ask the kernel; in the network namespace of the calling thread."""
    asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    # The kernel's own limit: with Python's each answer, of ten thousand, would be waited for first.
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _LIMIT, 0))
    return asking


def receive(asking: socket.socket) -> bytes:
    """Return what the kernel says next; TimeoutError where it says nothing."""
    try:
        return asking.recv(65_536)
    except BlockingIOError:
        raise TimeoutError(f"no answer within {_LIMIT} s") from None


def message(kind: int, body: bytes, *, flags: int = REQUEST, number: int = 0) -> bytes:
    """Return a message; its number comes back with the answer."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body


def messages(text: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield kind, number and body of each message in what was received at once."""
    start = 0
    while start + HEADER.size <= len(text):
        length, kind, _, number, _ = HEADER.unpack_from(text, start)
        yield kind, number, text[start + HEADER.size : start + length]
        start += max(aligned(length), HEADER.size)


def dump(kind: int, body: bytes, *, protocol: int = socket.NETLINK_ROUTE) -> Iterator[bytes]:
    """Yield the bodies of all that the kernel has of a kind; HostError where it refuses."""
    try:
        with open_socket(protocol) as asking:
            asking.send(message(kind, body, flags=REQUEST | DUMP))
            while True:
                for found, _, content in messages(receive(asking)):
                    if found == _DONE:
                        return
                    if found == _ERROR:
                        raise OSError(-number(content[:4], signed=True), "refused")
                    yield content
    except OSError as error:
        raise HostError(f"the kernel does not say what there is: {error}") from None


def attribute(kind: int, content: bytes) -> bytes:
    """Return an attribute; its content must need no padding."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(content), kind) + content


def attributes(text: bytes) -> dict[int, bytes]:
    """Return the attributes in a message's text behind its own fields, by kind."""
    found, start, last = {}, 0, len(text) - ATTRIBUTE.size
    head, unpack = ATTRIBUTE.size, ATTRIBUTE.unpack_from  # Tens of thousands are read at once.
    while start <= last:
        length, kind = unpack(text, start)
        found[kind & _TYPE] = text[start + head : start + length]
        start += length + 3 & ~3 or head
    return found


def number(text: bytes, *, signed: bool = False) -> int:
    """Return a number in the host's order."""
    return int.from_bytes(text, sys.byteorder, signed=signed)


def aligned(length: int) -> int:
    """Return a length as it is in a message: a multiple of four."""
    return length + 3 & ~3
