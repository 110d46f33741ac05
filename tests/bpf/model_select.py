"""The hash that chooses a backend and leads the search for a port: MurmurHash3 in Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from tests.bpf.harness.tables import Flow

SEED = 0x4C4C4221
AGAIN, SECOND, RAMP = 0x9E3779B9, 0x85EBCA77, 0xC2B2AE3D
TRIES = 8
RAMP_STEPS = 1024
_M = 0xFFFFFFFF


def select_hash(flow: Flow) -> int:
    """MurmurHash3 (32 bits) of the tuple: source, destination, both ports, protocol."""
    words = (*_words(flow.src), *_words(flow.dst), flow.sport << 16 | flow.dport, flow.protocol)
    return _hash(words)


def source_hash(client: IPv4Address | IPv6Address, bits: int) -> int:
    """The same of the first bits of a client's address."""
    length = client.max_prefixlen
    kept = int(client) >> length - bits << length - bits
    return _hash(_words(type(client)(kept)))


def part_of_share(started: int, ramp: int, now: int) -> int:
    """How many of RAMP_STEPS a backend gets of its share, in its slow start of `ramp` ticks."""
    since = (now - started) & _M
    if not started or since >= ramp:
        return RAMP_STEPS
    return max(since * RAMP_STEPS // ramp, RAMP_STEPS // 10)


def declines(part: int, hash_: int) -> bool:
    """Whether a backend that gets that part of its share leaves a connection to another."""
    return finish(hash_ ^ RAMP) % RAMP_STEPS >= part


def _words(address: IPv4Address | IPv6Address) -> Iterator[int]:
    packed = address.packed
    return (int.from_bytes(packed[at : at + 4], "big") for at in range(0, len(packed), 4))


def _hash(words: Iterable[int]) -> int:
    value = SEED
    for word in words:
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
