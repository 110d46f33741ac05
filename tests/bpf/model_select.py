"""The hash that chooses a backend and leads the search for a port: MurmurHash3 in Python."""

from __future__ import annotations

from tests.bpf.harness.tables import Flow

SEED = 0x4C4C4221
_M = 0xFFFFFFFF


def select_hash(flow: Flow) -> int:
    """MurmurHash3 (32 bits) of the tuple: source, destination, both ports, protocol."""
    value = SEED
    for word in (
        int(flow.src),
        int(flow.dst),
        flow.sport << 16 | flow.dport,
        flow.protocol,
    ):
        word = word * 0xCC9E2D51 & _M
        word = (word << 15 | word >> 17) & _M
        value ^= word * 0x1B873593 & _M
        value = (value << 13 | value >> 19) & _M
        value = (value * 5 + 0xE6546B64) & _M
    return finish(value)


def finish(value: int) -> int:
    """MurmurHash3's last mixing."""
    value &= _M
    value ^= value >> 16
    value = value * 0x85EBCA6B & _M
    value ^= value >> 13
    value = value * 0xC2B2AE35 & _M
    return value ^ value >> 16
