"""The frames in which hosts on a link ask for, and tell, the MAC address that goes with an IP
address: ARP (RFC 826) and neighbour discovery (RFC 4861). Pure: nothing is sent here.
"""

from __future__ import annotations

import ipaddress
import struct

from llb_core.model import Address

_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_ETHERNET = 1
_REQUEST, _REPLY = 1, 2
_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136
_ROUTER, _OVERRIDE = 1 << 31, 1 << 29
_TARGET_MAC = 2
"""The option with the link-layer address of the target; its length counts eight bytes."""
_EVERYBODY = b"\xff" * 6
_ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
_HOP_LIMIT = 255
"""By which a receiver knows that no router has sent it on (RFC 4861, 7.1)."""


def question(own: bytes, address: Address) -> bytes:
    """Ask who has an address, and tell nobody that it might be ours: a probe (RFC 5227, 2.1.1; RFC
    4862, 5.4.2)."""
    if isinstance(address, ipaddress.IPv4Address):
        return _arp_request(own, sender=bytes(4), target=address.packed)
    group = bytes.fromhex("ff0200000000000000000001ff") + address.packed[-3:]
    body = struct.pack("!I", 0) + address.packed
    return _discovery(own, _SOLICITATION, source=bytes(16), group=group, body=body)


def announcement(own: bytes, address: Address, *, is_router: bool) -> bytes:
    """Tell all on the link that an address of ours goes with this MAC address now, whatever they
    know: an ARP announcement (RFC 5227, 2.3), an unsolicited advertisement (RFC 4861, 7.2.6).

    Neighbours that have asked for the address take it; others need not. One that has us as its
    router over IPv6 has us no more where `is_router` is wrong (RFC 4861, 7.2.5).
    """
    if isinstance(address, ipaddress.IPv4Address):
        return _arp_request(own, sender=address.packed, target=address.packed)
    flags = _OVERRIDE | (_ROUTER if is_router else 0)
    body = struct.pack("!I", flags) + address.packed + bytes((_TARGET_MAC, 1)) + own
    return _discovery(own, _ADVERTISEMENT, source=address.packed, group=_ALL_NODES, body=body)


def answer(frame: bytes) -> tuple[Address, str] | None:
    """Return for which address a frame answers a question, and who sent it."""
    if len(frame) < 42:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == _ARP and struct.unpack_from("!H", frame, 20)[0] == _REPLY:
        return ipaddress.IPv4Address(frame[28:32]), frame[22:28].hex(":")
    if kind == _IPV6 and len(frame) >= 78 and frame[20] == _ICMPV6 and frame[54] == _ADVERTISEMENT:
        return ipaddress.IPv6Address(frame[62:78]), frame[6:12].hex(":")
    return None


def _arp_request(own: bytes, *, sender: bytes, target: bytes) -> bytes:
    fixed = struct.pack("!HHBBH", _ETHERNET, _IPV4, len(own), len(sender), _REQUEST)
    head = _EVERYBODY + own + struct.pack("!H", _ARP)
    return head + fixed + own + sender + bytes(len(own)) + target


def _discovery(own: bytes, kind: int, *, source: bytes, group: bytes, body: bytes) -> bytes:
    """Return a message of ICMPv6 to a group, `body` behind its checksum."""
    length = 4 + len(body)
    pseudo = source + group + struct.pack("!II", length, _ICMPV6)
    sum_ = _checksum(pseudo + struct.pack("!BBH", kind, 0, 0) + body)
    head = b"\x33\x33" + group[-4:] + own + struct.pack("!H", _IPV6)
    ip = struct.pack("!IHBB", 6 << 28, length, _ICMPV6, _HOP_LIMIT) + source + group
    return head + ip + struct.pack("!BBH", kind, 0, sum_) + body


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
