"""Mutated and random packets by the million, and what must hold of each whatever it is.

The model says of a packet what ought to become of it; this says only what may never happen, by
other means and quicker: what is not ours is not written to; what is forwarded differs from what
came in no bytes but those of a rewriting, goes between the two right addresses, and its checksums
are as right or wrong as they were; what is refused has become a whole and right ICMP error.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from llb_core.datapath.layout import ASSURED, ConnectionState, opening_places
from tests.bpf.cases import CASES
from tests.bpf.harness import talk
from tests.bpf.harness.rig import ETHERNET, ETHERTYPE, PEER_MAC, Rig, as_read, is_counted, to_frame
from tests.bpf.harness.world import BACKEND, NARROW, PRIVATE, PUBLIC, SECOND, SNAT, VIP, address

PASS, SHOT, REDIRECT = -1, 2, 7
LEAST = {4: 34, 6: 54}
"""The kernel runs programs on no shorter frames."""
MOST = 3500
_EDGES = (0, 1, 2, 5, 6, 17, 20, 40, 43, 44, 58, 60, 63, 64, 127, 128, 254, 255)
_ICMP = {4: 1, 6: 58}
_FRAGMENT = 44
_EXTENSIONS = (0, 43, 60, _FRAGMENT)


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet that is sent: by which interface, and what its context says of merged segments."""

    frame: bytes
    interface: int
    gso_size: int = 0


class Packets:
    """An endless sequence of packets, the same for the same seed."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self._random = random.Random(seed)
        self._family = rig.family
        self._indices = (rig.public_index, rig.private_index)
        self._shapes = [
            Sent(to_frame(case.packet, case.arrives_on), rig.index(case.arrives_on), case.gso_size)
            for case in CASES[rig.family]
        ]
        self._shapes = [
            each for each in self._shapes if LEAST[rig.family] <= len(each.frame) <= MOST
        ]

    def __iter__(self) -> Iterator[Sent]:
        """Mutated ones mostly; one in sixteen is random, behind a plausible beginning or none."""
        draw = self._random
        while True:
            if draw.random() < 1 / 16:
                yield self._noise()
            else:
                yield self._mutated(draw.choice(self._shapes))

    def _mutated(self, shape: Sent) -> Sent:
        draw = self._random
        frame = bytearray(shape.frame)
        for _ in range(draw.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
            self._mutate(frame)
        interface = shape.interface if draw.random() < 0.9 else draw.choice(self._indices)
        gso_size = shape.gso_size if draw.random() < 0.9 else draw.choice((0, 1, 536, 1448))
        return Sent(self._fitted(frame), interface, gso_size)

    def _mutate(self, frame: bytearray) -> None:
        """Change a byte, a bit or a word; cut, lengthen or splice; mostly among the headers."""
        draw = self._random
        if len(frame) <= ETHERNET:
            frame += draw.randbytes(20)
        reach = min(len(frame), 130) if draw.random() < 0.9 else len(frame)
        place = draw.randrange(ETHERNET if draw.random() < 0.97 else 0, reach)
        match draw.randrange(8):
            case 0 | 1:
                frame[place] = draw.randrange(256)
            case 2:
                frame[place] ^= 1 << draw.randrange(8)
            case 3 | 4:
                frame[place] = draw.choice(_EDGES)
            case 5:
                frame[place : place + 2] = draw.randrange(1 << 16).to_bytes(2, "big")
            case 6:
                size = draw.randrange(1, 64)
                if draw.random() < 0.5:
                    del frame[place : place + size]
                else:
                    frame[place:place] = draw.randbytes(size)
                self._state_length(frame)
            case 7:
                other = draw.choice(self._shapes).frame
                start = draw.randrange(ETHERNET, len(other))
                frame[place:] = other[start : start + 1500]
                self._state_length(frame)

    def _state_length(self, frame: bytearray) -> None:
        """Say so in the IP header, or not."""
        if self._random.random() < 0.3 or len(frame) < LEAST[self._family]:
            return
        at, length = (16, len(frame) - 14) if self._family == 4 else (18, len(frame) - 54)
        frame[at : at + 2] = length.to_bytes(2, "big")

    def _noise(self) -> Sent:
        draw = self._random
        interface = draw.choice(self._indices)
        mac = PUBLIC.mac if interface == self._indices[0] else PRIVATE.mac
        ends = bytes.fromhex((mac + PEER_MAC).replace(":", ""))
        frame = ends + ETHERTYPE[self._family].to_bytes(2, "big")
        if draw.random() < 0.5:
            frame += bytes([draw.choice((0x45, 0x46, 0x4F, 0x60, 0x6F))])
        size = draw.choice((0, 20, 40, 60, 100, 200, 600))
        return Sent(self._fitted(bytearray(frame + draw.randbytes(size))), interface)

    def _fitted(self, frame: bytearray) -> bytes:
        """As long as the kernel takes, of what it may read as the family that it is."""
        families = [each for each in LEAST if each == self._family or _says(frame, each)]
        return bytes(frame[:MOST]).ljust(max(LEAST[each] for each in families), b"\0")


def _says(frame: bytearray, family: int) -> bool:
    return frame[12:14] == ETHERTYPE[family].to_bytes(2, "big")


def ones_sum(*parts: bytes) -> int:
    """Return the sum of words in one's complement (RFC 1071), by arithmetic of whole numbers: 2**16
    is 1 modulo 65535. Parts are padded to words."""
    return sum(int.from_bytes(part + b"\0" * (len(part) % 2), "big") for part in parts) % 65535


@dataclass(frozen=True, slots=True)
class Header:
    """As much of a packet as the checks need. Offsets are from the start of the IP packet."""

    src: bytes
    dst: bytes
    addresses: slice
    hops: int
    l4: int
    end: int
    protocol: int
    is_later_fragment: bool
    is_fragment: bool


class Checker:
    """What may become of a packet of one family."""

    def __init__(self, rig: Rig) -> None:
        self._family = rig.family
        self._by_index = {rig.public_index: PUBLIC, rig.private_index: PRIVATE}
        ours = [address(each).packed for each in (VIP, SNAT)]
        backends = [address(each).packed for each in (BACKEND, SECOND, NARROW)]
        self._vip, self._snat = ours
        self._backends = set(backends)

    def check(self, sent: Sent, action: int, out: bytes) -> None:
        """Fail where something has happened that never may."""
        read = self.as_read(sent)
        if action != REDIRECT:
            assert action in (PASS, SHOT), f"action {action}"
            assert out == (read or sent.frame), "written to, and not sent on"
            return
        assert read is not None, "behind too many tags, and rewritten"
        assert out[:ETHERNET] == read[:ETHERNET], "another frame"
        before, after = read[ETHERNET:], out[ETHERNET:]
        was = self.header(before)
        assert was is not None, "not for us to understand, and rewritten"
        assert was.dst in (self._vip, self._snat), "not to an address of ours, and rewritten"
        now = self.header(after)
        assert now is not None, "no packet any more"
        if now.protocol == _ICMP[self._family] and was.protocol != now.protocol:
            self._check_refusal(before, was, after, now)
        else:
            self._check_forwarded(before, was, after, now)

    def as_read(self, sent: Sent) -> bytes | None:
        """Return the frame without tags of VLAN 0; None where it has too many."""
        return as_read(sent.frame, self._by_index[sent.interface])

    def is_counted(self, sent: Sent) -> bool:
        """Say whether it is for the classifier of this family to count."""
        return is_counted(self.as_read(sent))

    def _check_refusal(self, before: bytes, was: Header, after: bytes, now: Header) -> None:
        """The packet has become an error about itself."""
        assert (now.src, now.dst) == (was.dst, was.src), "an error to somebody else"
        assert len(after) == now.end <= (576 if self._family == 4 else 1280)
        assert self._header_sum(after, now) == self._message_sum(after, now) == 0
        quoted = after[now.l4 + 8 :]
        assert was.l4 + 8 <= len(quoted), "an error that does not say what it is about"
        sum_at = was.l4 + (16 if was.protocol == 6 else 6)
        differs = [place for place in range(len(quoted)) if quoted[place] != before[place]]
        # A sum that looked as if it were left to the device is set so that it may be filled in.
        assert set(differs) <= {sum_at, sum_at + 1}, f"an error about another packet: {differs}"

    def _check_forwarded(self, before: bytes, was: Header, after: bytes, now: Header) -> None:
        """The packet has other addresses and ports, and is one hop older."""
        assert len(after) == len(before)
        assert after[was.hops] == before[was.hops] - 1
        if now.src == self._snat:
            assert was.dst == self._vip, "to a backend what was not for a VIP"
            assert now.dst in self._backends, "to no backend"
        else:
            assert now.src == self._vip, "from an address that is not ours"
            assert was.dst == self._snat, "to a client what was not for us"
        is_error = was.protocol == _ICMP[self._family] and not was.is_later_fragment
        may = self._places_of_error(before, was) if is_error else self._places(was)
        differs = {place for place in range(len(before)) if before[place] != after[place]}
        assert differs <= may, f"changed beside its rewriting at {sorted(differs - may)}"
        assert self._header_sum(after, now) == self._header_sum(before, was), "sum of IP"
        if not was.is_later_fragment and not self._is_unsummed(before, was):
            assert self._message_sum(after, now) == self._message_sum(before, was), "sum"

    def _places(self, was: Header) -> set[int]:
        """Where a rewriting may change a packet."""
        places = {was.hops, *range(was.addresses.start, was.addresses.stop)}
        if self._family == 4:
            places |= {10, 11}
            places |= {4, 5} if was.is_fragment else set()
        if not was.is_later_fragment:
            sum_at = was.l4 + (16 if was.protocol == 6 else 6)
            places |= {*range(was.l4, was.l4 + 4), sum_at, sum_at + 1}
        return places

    def _places_of_error(self, before: bytes, was: Header) -> set[int]:
        places = {was.hops, *range(was.addresses.start, was.addresses.stop)}
        places |= {10, 11} if self._family == 4 else set()
        start = was.l4 + 8
        inner = self.header(before[start : was.end], is_quoted=True)
        assert inner is not None, "an error about nothing that we know"
        places |= {was.l4 + 2, was.l4 + 3}
        places |= {start + place for place in self._places(inner)} - {start + inner.hops}
        return places

    def _is_unsummed(self, packet: bytes, header: Header) -> bool:
        """A datagram of IPv4 without a checksum."""
        return header.protocol == 17 and packet[header.l4 + 6 : header.l4 + 8] == b"\0\0"

    def _header_sum(self, packet: bytes, header: Header) -> int:
        return ones_sum(packet[: (packet[0] & 15) * 4]) if self._family == 4 else 0

    def _message_sum(self, packet: bytes, header: Header) -> int:
        """Of what the packet carries, with the pseudo-header where there is one."""
        carried = packet[header.l4 : header.end]
        if self._family == 4 and header.protocol == 1:
            return ones_sum(carried)
        pseudo = struct.pack("!II", len(carried), header.protocol)
        return ones_sum(packet[header.addresses], pseudo, carried)

    def header(self, packet: bytes, *, is_quoted: bool = False) -> Header | None:
        """Read an IP header up to what it carries; None where it is none, or reaches too far."""
        read = self._ipv4 if self._family == 4 else self._ipv6
        return read(packet, is_quoted=is_quoted)

    def _ipv4(self, packet: bytes, *, is_quoted: bool) -> Header | None:
        if len(packet) < 20 or packet[0] >> 4 != 4 or packet[0] & 15 < 5:
            return None
        length, _, fragment = struct.unpack_from("!HHH", packet, 2)
        if length > len(packet) and not is_quoted:
            return None
        return Header(
            packet[12:16], packet[16:20], slice(12, 20), 8, (packet[0] & 15) * 4,
            length or len(packet), packet[9], bool(fragment & 0x1FFF), bool(fragment & 0x3FFF),
        )  # fmt: skip

    def _ipv6(self, packet: bytes, *, is_quoted: bool) -> Header | None:
        if len(packet) < 40 or packet[0] >> 4 != 6:
            return None
        length = int.from_bytes(packet[4:6], "big")
        if 40 + length > len(packet) and not is_quoted:
            return None
        end, protocol, place = 40 + length if length else len(packet), packet[6], 40
        is_fragment = is_later = False
        while protocol in _EXTENSIONS and place + 8 <= len(packet) and not is_later:
            if protocol == _FRAGMENT:
                offset = int.from_bytes(packet[place + 2 : place + 4], "big")
                is_later, is_fragment = bool(offset & 0xFFF8), is_fragment or bool(offset & 0xFFF9)
                size = 8
            else:
                size = (packet[place + 1] + 1) * 8
            protocol, place = packet[place], place + size
        return Header(packet[8:24], packet[24:40], slice(8, 40), 7, place, end, protocol, is_later,
                      is_fragment)  # fmt: skip


def look_over(rig: Rig) -> int:
    """Fail where the tables are not what they must be between two packets: each half has its twin,
    no two connections share a tuple, and as many are counted as there are. Return how many."""
    pairs = rig.pairs()
    opening = sum(not dnat.state & ASSURED for dnat, _ in pairs.values())
    assert opening <= opening_places(rig.settings.max_connections)
    live = [dnat for dnat, _ in pairs.values() if dnat.kind is not ConnectionState.CLOSED]
    services, backends = rig.loads.connections()
    assert +Counter(services) == Counter(each.service for each in live)
    assert +Counter(backends) == Counter(each.backend for each in live)
    return len(pairs)


def connect(rig: Rig) -> None:
    """Have the connections that the shapes are about, and in the end those that stand."""
    givens = dict.fromkeys(case.given for case in CASES[rig.family])
    for given in (*givens, talk.established, talk.replied):
        given(rig)
