"""Reset both ends of connections that LLB has ended: segments from raw sockets.

Each side gets a RST from the address and port that it has been talking to. Its sequence number must
be exactly what that side awaits (RFC 5961, 3.2). That is known as it last said it; where data were
on their way to it, it may await more by now, so a second RST carries the number behind them. Both
carry an acknowledgement, as the reset of an ended process does.
"""

from __future__ import annotations

import functools
import socket
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath.layout import STATE_MASK, ConnectionState, Records
from llb_core.errors import HostError
from llb_core.model import Transport

Columns = npt.NDArray[Any]
_RST_ACK = 0x14
_TTL = 64
_TCP_BYTES = 20
_TCP = [
    ("sport", ">u2"),
    ("dport", ">u2"),
    ("seq", ">u4"),
    ("ack", ">u4"),
    ("offset", "u1"),
    ("flags", "u1"),
    ("window", ">u2"),
    ("checksum", ">u2"),
    ("urgent", ">u2"),
]


def send_resets(of: Records, ended: Columns) -> int:
    """Reset both ends of the TCP connections among these; return how many that were.

    `ended` are records of `of.ended`, of connections that are out of the tables already
    (`MapSync.end_connections`): their ends' answers belong to nobody then. Those that are closed,
    and flows over UDP, have nothing to reset. An end to which there is no way is left to find out
    by itself. Raises HostError where the process may open no raw socket (CAP_NET_RAW).
    """
    state = ended["snat_half"]["state"] & STATE_MASK
    is_open = (ended["key"]["proto"] == Transport.TCP.number) & (state != ConnectionState.CLOSED)
    ended = ended[is_open]
    if len(ended):
        with _open(of.family) as raw:
            _send(raw, segments(of, ended))
    return len(ended)


def segments(of: Records, ended: Columns) -> Columns:
    """Return the segments that reset connections, with their IP headers, in the connections' order;
    IPv4's identification and checksum are the kernel's."""
    key, from_client, from_backend = ended["key"], ended["dnat_half"], ended["snat_half"]
    made = np.zeros((len(ended), 4), dtype=_packet(of))
    for place, seq in enumerate((from_client["ack"], from_backend["next"])):
        rows = made[:, place]
        rows["src"], rows["sport"] = key["dst"], key["dport"]
        rows["dst"], rows["dport"] = key["src"], key["sport"]
        rows["seq"], rows["ack"] = seq, from_client["next"]
    for place, seq in enumerate((from_backend["ack"], from_client["next"]), 2):
        rows = made[:, place]
        rows["src"], rows["sport"] = from_client["new_src"], from_client["new_sport"]
        rows["dst"], rows["dport"] = from_client["new_dst"], from_client["new_dport"]
        rows["seq"], rows["ack"] = seq, from_backend["next"]
    is_wanted = np.ones(made.shape, dtype=bool)
    for second in (1, 3):
        is_wanted[:, second] = made[:, second]["seq"] != made[:, second - 1]["seq"]
    wanted = made[is_wanted]
    _complete(of, wanted)
    return wanted


def _complete(of: Records, rows: Columns) -> None:
    """Fill in what is the same in all segments, and their checksums (RFC 1071)."""
    if of.family == 4:
        rows["begin"], rows["length"] = 0x4500, 20 + _TCP_BYTES
    else:
        rows["begin"], rows["length"] = 0x6000, _TCP_BYTES
    rows["next"], rows["ttl"] = socket.IPPROTO_TCP, _TTL
    rows["offset"], rows["flags"] = 5 << 4, _RST_ACK
    words = rows.view(">u2").reshape(len(rows), -1)
    summed = rows.dtype.itemsize - _TCP_BYTES - 2 * of.address.itemsize
    total = words[:, summed // 2 :].sum(axis=1, dtype=np.uint32)
    total += _TCP_BYTES + socket.IPPROTO_TCP
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    rows["checksum"] = ~total & 0xFFFF


@functools.cache
def _packet(of: Records) -> np.dtype[Any]:
    """Return the record of a segment with its IP header, whose addresses are next to TCP's."""
    ends = [("src", of.address), ("dst", of.address)]
    if of.family == 4:
        head = [("begin", ">u2"), ("length", ">u2"), ("fragment", "u4"), ("ttl", "u1")]
        return np.dtype([*head, ("next", "u1"), ("sum", "u2"), *ends, *_TCP])
    head = [("begin", ">u2"), ("label", "u2"), ("length", ">u2"), ("next", "u1"), ("ttl", "u1")]
    return np.dtype([*head, *ends, *_TCP])


def _open(version: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except OSError as error:
        raise HostError(
            f"connections can't be reset: {error.strerror}: run as root, or with CAP_NET_RAW"
        ) from None


def _send(raw: socket.socket, rows: Columns) -> None:
    whole, size = memoryview(rows.tobytes()), rows.dtype.itemsize
    targets = np.ascontiguousarray(rows["dst"]).tobytes()
    length = len(targets) // len(rows)
    told = functools.lru_cache(maxsize=4)(functools.partial(socket.inet_ntop, raw.family))
    for row in range(len(rows)):
        target = told(targets[row * length : (row + 1) * length])
        try:
            raw.sendto(whole[row * size : (row + 1) * size], (target, 0))
        except OSError:  # no route, or a firewall's refusal
            continue
