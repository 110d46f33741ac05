"""What may happen to a balancer, as values: packets, time, changes of plan.

`choices` says what of them there is to draw from.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from scapy.layers.inet import ICMP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    ICMPv6Unknown,
    IPv6ExtHdrDestOpt,
)
from scapy.packet import Raw

from llb_core.model import (
    Access,
    BackendMode,
    DesiredService,
    Endpoint,
    Limits,
    Policy,
    Transport,
)
from llb_core.planning.changes import PutBackend
from llb_core.rules import Rules
from tests.bpf.agreement import Agreement
from tests.bpf.harness import world
from tests.bpf.harness.family import at_hand
from tests.bpf.harness.packets import MORE_FRAGMENTS, ip, tcp, udp, with_headers
from tests.bpf.harness.rig import to_frame
from tests.bpf.harness.tables import Flow
from tests.bpf.harness.world import BACKEND, PRIVATE, PUBLIC, SECOND, VIP, Interface

BACKENDS = (BACKEND, SECOND)
WEIGHTS = (1, 2)
LIMITS = (
    Limits(source_new_per_second=2),
    Limits(new_per_second=2),
    Limits(connections=1, source_connections=1),
)
"""Of each service, for all the time: a count that begins late is put right by and by."""
SERVICES = (("web", Transport.TCP, 80, 8080), ("also", Transport.TCP, 81, 8080),
            ("dns", Transport.UDP, 53, 5353))  # fmt: skip

REMEMBERED = functools.lru_cache(maxsize=1 << 16)
"""Of frames: to make one takes longer than all else that is done with it."""

_PAYLOAD = bytes(place % 251 for place in range(1500))

Modes = tuple[tuple[BackendMode | None, BackendMode | None], ...]
"""Of each service's two backends; None for one that is not registered."""


Policies = tuple[Policy, ...]
"""Of each service."""


class Step(Protocol):
    """Something that happens."""

    def happen(self, both: Agreement) -> None:
        """Do it to the model and to the classifier."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What of a packet is not its tuple."""

    flags: str = "A"
    seq: int = 1000
    ack: int = 1000
    payload: int = 0
    ttl: int = 64
    ip_flags: int = 0
    extensions: int = 0
    """Headers of destination options before it, over IPv6."""

    def send(self, both: Agreement, flow: Flow, *, is_private: bool) -> None:
        """Send it on a tuple."""
        interface = PRIVATE if is_private else PUBLIC
        both.send(_on_tuple(at_hand(), self, flow, interface), interface)


@REMEMBERED
def _on_tuple(family: int, segment: Segment, flow: Flow, interface: Interface) -> bytes:
    ends = (str(flow.src), str(flow.dst), flow.sport, flow.dport)
    payload = _PAYLOAD[: segment.payload]
    header = {"ttl": segment.ttl, "ip_flags": segment.ip_flags}
    if flow.protocol == Transport.TCP.number:
        packet = tcp(*ends, segment.flags, payload, seq=segment.seq, ack=segment.ack, **header)
    else:
        packet = udp(*ends, payload, **header)
    if family == 6 and segment.extensions:
        packet = with_headers(packet, *[IPv6ExtHdrDestOpt()] * segment.extensions)
    return to_frame(packet, interface)


@dataclass(frozen=True, slots=True)
class FromClient:
    """A packet to a service."""

    client: str
    port: int
    service: int
    segment: Segment

    def happen(self, both: Agreement) -> None:
        """Send it; one of the clients is a backend."""
        _, protocol, port, _ = SERVICES[self.service]
        flow = Flow(
            world.address(self.client), world.address(VIP), self.port, port, protocol.number
        )
        self.segment.send(both, flow, is_private=self.client in BACKENDS)


@dataclass(frozen=True, slots=True)
class Burst:
    """A client that opens several connections at once."""

    client: str
    service: int

    def happen(self, both: Agreement) -> None:
        """Send their first packets."""
        for port in range(3000, 3004):
            FromClient(self.client, port, self.service, Segment("S", 999, 0)).happen(both)


@dataclass(frozen=True, slots=True)
class FromBackend:
    """A packet on the tuple of one of the connections that stand, if there are any."""

    which: int
    segment: Segment

    def happen(self, both: Agreement) -> None:
        """Send it."""
        answers = list(both.model.answers)
        if answers:
            self.segment.send(both, answers[self.which % len(answers)], is_private=True)


@dataclass(frozen=True, slots=True)
class FromStranger:
    """A packet of a backend to a SNAT port, or beside the range, that may belong to nobody."""

    backend: str
    protocol: int
    port: int
    segment: Segment

    def happen(self, both: Agreement) -> None:
        """Send it."""
        addresses = (world.address(self.backend), world.address(world.SNAT))
        flow = Flow(*addresses, 8080, self.port, self.protocol)
        self.segment.send(both, flow, is_private=True)


@dataclass(frozen=True, slots=True)
class LaterFragment:
    """A fragment without ports of a client or of a backend, whose first one may have come by."""

    source: str
    target: str
    protocol: int
    payload: int
    ttl: int
    is_last: bool

    def happen(self, both: Agreement) -> None:
        """Send it."""
        interface = PRIVATE if self.source in BACKENDS else PUBLIC
        both.send(_of_fragment(at_hand(), self, interface), interface)


@REMEMBERED
def _of_fragment(family: int, fragment: LaterFragment, interface: Interface) -> bytes:
    header = ip(
        fragment.source,
        fragment.target,
        fragment.protocol,
        frag=185,
        ip_flags=0 if fragment.is_last else MORE_FRAGMENTS,
        ttl=fragment.ttl,
    )
    return to_frame(header / Raw(bytes(fragment.payload)), interface)


@dataclass(frozen=True, slots=True)
class InPieces:
    """A datagram of a client in two fragments, of which the last has this many bytes of payload."""

    client: str
    port: int
    payload: int

    def happen(self, both: Agreement) -> None:
        """Send both."""
        FromClient(self.client, self.port, 2, Segment(ip_flags=MORE_FRAGMENTS)).happen(both)
        LaterFragment(self.client, VIP, 17, self.payload, 64, is_last=True).happen(both)


ERRORS = {
    4: [ICMP(type=3, code=3), ICMP(type=3, code=4, nexthopmtu=1200), ICMP(type=11), ICMP(type=12),
        ICMP(type=3, code=1), ICMP(type=4), ICMP(type=5), ICMP(type=8)],
    6: [ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded(),
        ICMPv6ParamProblem(), ICMPv6DestUnreach(code=0), ICMPv6Unknown(type=5),
        ICMPv6Unknown(type=0), ICMPv6EchoRequest()],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An error about a packet that the balancer sent, to a backend or to a client."""

    which: int
    is_about_client: bool
    reporter: str | None
    """Who sends it; None for the packet's destination itself."""
    error: int
    """Which of `ERRORS`."""
    quoted: int
    """How many bytes of TCP or UDP it quotes."""
    ttl: int
    is_private: bool

    def happen(self, both: Agreement) -> None:
        """Send it, if any connection stands."""
        known = both.model.connections if self.is_about_client else both.model.answers
        if not known:
            return
        sent = list(known)[self.which % len(known)].reverse
        interface = PRIVATE if self.is_private else PUBLIC
        both.send(_of_error(at_hand(), self, sent, interface), interface)


@REMEMBERED
def _of_error(family: int, step: IcmpError, sent: Flow, interface: Interface) -> bytes:
    """Return an error about a packet of that tuple."""
    ends = (str(sent.src), str(sent.dst), sent.sport, sent.dport)
    is_tcp = sent.protocol == Transport.TCP.number
    quoted = tcp(*ends, "A", b"data") if is_tcp else udp(*ends, b"data")
    protocol, header = {4: (1, 20), 6: (58, 40)}[family]
    outer = ip(step.reporter or str(sent.dst), str(sent.src), protocol, ttl=step.ttl)
    error = ERRORS[family][step.error % len(ERRORS[family])].copy()
    return to_frame(outer / error / Raw(bytes(quoted)[: header + step.quoted]), interface)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A connection of a client from its SYN to some way of ending."""

    client: str
    port: int
    service: int
    ending: str

    def happen(self, both: Agreement) -> None:
        """Send its packets; `c` is the client, `b` the backend, capitals are FIN, `r` resets."""
        number = SERVICES[self.service][1].number
        arrives = Flow(
            world.address(self.client),
            world.address(VIP),
            self.port,
            SERVICES[self.service][2],
            number,
        )
        sent = {"c": 1000, "b": 1000}
        script = [("c", "S", 999, 0), ("b", "SA", 999, 1000), ("c", "A", 1000, 1000)]
        for letter in self.ending:
            side, other = ("c", "b") if letter in "cCr" else ("b", "c")
            flags = "R" if letter == "r" else "FA" if letter.isupper() else "A"
            script.append((side, flags, sent[side], sent[other]))
            sent[side] += letter.isupper()
        for side, flags, seq, ack in script:
            connection = both.model.connections.get(arrives)
            segment = Segment(flags, seq, ack)
            if side == "c":
                segment.send(both, arrives, is_private=self.client in BACKENDS)
            elif connection is not None:
                segment.send(both, connection.answer, is_private=True)


@dataclass(frozen=True, slots=True)
class TimePasses:
    """Nothing happens for some seconds."""

    seconds: float

    def happen(self, both: Agreement) -> None:
        """Age every connection."""
        both.pass_time(self.seconds)


@dataclass(frozen=True, slots=True)
class Collection:
    """The daemon cleans up."""

    def happen(self, both: Agreement) -> None:
        """Do so."""
        both.collect()


@dataclass(frozen=True, slots=True)
class PlanIsCutOff:
    """One backend's records change, and nothing else yet."""

    backend: str
    port: int
    mode: BackendMode
    has_route: bool

    def happen(self, both: Agreement) -> None:
        """Write them: the backend's in every service that it is in."""
        way = world.route(both.rig.private_index, self.backend) if self.has_route else None
        endpoint = Endpoint(world.address(self.backend), self.port)
        for installed in both.rig.sync.installed().backends.values():
            if installed.endpoint == endpoint:
                both.rig.apply(PutBackend(replace(installed, mode=self.mode, route=way)))
        both.installed_anew()


@dataclass(frozen=True, slots=True)
class PlanIsCarriedOut:
    """All services and backends as they are desired from now on."""

    modes: Modes
    policies: Policies
    prefixes: tuple[Mapping[str, bool], ...]
    """Of clients, by service: whether each is let in."""
    served: tuple[bool, ...]
    """Of each service; the others are withdrawn, and their slots free for any that comes."""

    def happen(self, both: Agreement) -> None:
        """Plan and apply."""
        every = services(both.rig.private_index, self.modes, self.policies, self.prefixes)
        both.rig.install(*itertools.compress(every, self.served))
        both.installed_anew()


def services(
    private: int,
    modes: Modes,
    policies: Policies,
    prefixes: tuple[Mapping[str, bool], ...] = ({},) * len(SERVICES),
) -> tuple[DesiredService, ...]:
    """Return the services of this small world."""
    return tuple(
        world.service(
            name,
            protocol,
            port,
            [
                world.backend(address, backend_port, private, mode=mode, weight=weight)
                for address, weight, mode in zip(BACKENDS, WEIGHTS, of_service, strict=True)
                if mode is not None
            ],
            _admitting(policy, limits, of_clients),
            _rules(of_clients),
        )
        for (name, protocol, port, backend_port), of_service, policy, limits, of_clients in zip(
            SERVICES, modes, policies, LIMITS, prefixes, strict=True
        )
    )


def _rules(prefixes: Mapping[str, bool]) -> Rules:
    allowed = [world.network(each) for each, allows in prefixes.items() if allows]
    denied = [world.network(each) for each, allows in prefixes.items() if not allows]
    return Rules.of(allowed, denied, at_hand())


def _admitting(policy: Policy, limits: Limits, prefixes: Mapping[str, bool]) -> Policy:
    access = Access.OPEN
    if prefixes:
        access = Access.DENY if any(prefixes.values()) else Access.ALLOW
    return replace(policy, limits=limits, access=access)
