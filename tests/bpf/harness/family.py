"""The address family that a test is about, and what an address of IPv4 stands for in IPv6.

Tests are written once, with the addresses of IPv4 that `world` names; for IPv6 each stands for its
counterpart. Which family is at hand is said by the fixture `family`, and so by `rig`.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address

from llb_core.model import Address, Network

FAMILIES = (4, 6)

_PREFIX = 0x20010DB8
_OF_SPECIAL_MEANING = {
    "0.0.0.0": "::",
    "127.0.0.1": "::1",
    "224.0.0.1": "ff02::1",
    "239.255.255.255": "ff0e::ffff",
    "255.255.255.255": "ff05::2",
}
_at_hand = 4


@contextmanager
def using(family: int) -> Iterator[None]:
    """Take an address family in hand for a while."""
    global _at_hand
    before, _at_hand = _at_hand, family
    try:
        yield
    finally:
        _at_hand = before


def at_hand() -> int:
    """Return the address family that is meant, 4 or 6."""
    return _at_hand


def address(text: str) -> Address:
    """Return an address, or for IPv6 what an address of IPv4 stands for.

    10.0.0.2 stands for 2001:db8:a00:2::a00:2, so that two that differ do so early and late.
    """
    return _address(text, _at_hand)


@functools.cache
def _address(text: str, family: int) -> Address:
    parsed = ipaddress.ip_address(text)
    if parsed.version == family:
        return parsed
    assert isinstance(parsed, IPv4Address), f"{text} while IPv4 is at hand"
    if text in _OF_SPECIAL_MEANING:
        return IPv6Address(_OF_SPECIAL_MEANING[text])
    number = int(parsed)
    return IPv6Address(_PREFIX << 96 | number << 64 | number)


def prefix(bits: int) -> int:
    """Return the length of a prefix of IPv4, or for IPv6 that of what it stands for."""
    return bits if _at_hand == 4 else 32 + bits


def network(text: str) -> Network:
    """Return a network, or for IPv6 that of what the addresses in it stand for."""
    return _network(text, _at_hand)


@functools.cache
def _network(text: str, family: int) -> Network:
    parsed = ipaddress.ip_network(text)
    if parsed.version == family:
        return parsed
    number = _PREFIX << 96 | int(parsed.network_address) << 64
    return ipaddress.IPv6Network((number, prefix(parsed.prefixlen)))


def name_of(other: Address | str) -> str:
    """Return the address of IPv4 that one of the family at hand stands for."""
    parsed = ipaddress.ip_address(other)
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    named = {stands_for: text for text, stands_for in _OF_SPECIAL_MEANING.items()}
    return named.get(str(parsed)) or str(IPv4Address(int(parsed) & 0xFFFFFFFF))
