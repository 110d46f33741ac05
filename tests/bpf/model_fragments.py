"""What the model knows of datagrams in pieces: where the first one went, for those that follow.

A later fragment has no ports, so nothing else says where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from llb_core.datapath.layout import Verdict
from llb_core.model import Address
from tests.bpf.harness.tables import Flow
from tests.bpf.model_connection import since
from tests.bpf.model_packet import Parsed

SECONDS = 15
"""For how long a first fragment is remembered (RFC 791, 3.2)."""
_M = 0xFFFFFFFF

Datagram = tuple[Address, Address, int, int]
"""What all its fragments have in common: addresses, protocol, number."""


@dataclass(frozen=True, slots=True)
class First:
    """What became of a first fragment, and when; `becomes` is None where the stack got it."""

    at: int
    verdict: Verdict
    becomes: Flow | None
    mtu: int


@dataclass(slots=True)
class Fragments:
    """The first fragments that have come by."""

    known: dict[Datagram, First] = field(default_factory=dict)

    def note(self, packet: Parsed, first: First) -> None:
        """Remember one."""
        self.known[_datagram(packet)] = first

    def first_of(self, packet: Parsed, now: int, ticks_per_second: int) -> First | None:
        """Return what is known of a later fragment's first. One that is cut within its ports would
        bring others past us (RFC 1858): it follows nobody."""
        first = self.known.get(_datagram(packet))
        if first is None or packet.is_cut:
            return None
        return first if since(first.at, now) < SECONDS * ticks_per_second else None

    def times(self) -> dict[Datagram, int]:
        """Return when the first fragment of each datagram came by."""
        return {datagram: first.at for datagram, first in self.known.items()}

    def age(self, ticks: int) -> None:
        """Let time go by."""
        for datagram, first in self.known.items():
            self.known[datagram] = replace(first, at=(first.at - ticks) & _M)


def _datagram(packet: Parsed) -> Datagram:
    """Over IPv6 what a fragment says that it carries tells nothing (RFC 8200, 4.5)."""
    protocol = packet.flow.protocol if packet.flow.src.version == 4 else 0
    return packet.flow.src, packet.flow.dst, protocol, packet.id
