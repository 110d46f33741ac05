"""What may happen to a balancer, as values that hypothesis draws: packets, time, changes of plan.

A small world, so that everything meets: few clients and ports, two services that share a backend's
endpoint, and fewer SNAT ports than connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from hypothesis import strategies as st
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
    Scheduler,
    Transport,
)
from llb_core.planning.plan import PutBackend
from llb_core.rules import Rules
from tests.bpf.agreement import Agreement
from tests.bpf.harness import world
from tests.bpf.harness.family import at_hand
from tests.bpf.harness.packets import MORE_FRAGMENTS, ip, tcp, udp, with_headers
from tests.bpf.harness.tables import Flow
from tests.bpf.harness.world import BACKEND, PRIVATE, PUBLIC, SECOND, UNROUTABLE, VIP

CLIENTS = ("192.0.2.10", "192.0.2.11", "192.0.2.12", SECOND, UNROUTABLE)
CLIENT_PORTS = (2000, 2001, 2002, 40000, 40001)
BACKENDS = (BACKEND, SECOND)
WEIGHTS = (1, 2)
LIMITS = (
    Limits(source_new_per_second=2),
    Limits(new_per_second=2),
    Limits(connections=1, source_connections=1),
)
"""Of each service, for all the time: a count that begins late is put right by and by."""
SEQUENCE = (999, 1000, 1001)
FAR = (1000 + 2**20, (1000 - 2**20) % 2**32, 1000 + 2**31, 0)
"""Numbers that are nobody's, or wrap."""
FLAGS = ("S", "S", "SA", "A", "A", "PA", "FA", "FA", "F", "R", "RA", "SF", "")
SERVICES = (("web", Transport.TCP, 80, 8080), ("also", Transport.TCP, 81, 8080),
            ("dns", Transport.UDP, 53, 5353))  # fmt: skip

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
        ends = (str(flow.src), str(flow.dst), flow.sport, flow.dport)
        payload = bytes(place % 251 for place in range(self.payload))
        ttl, ip_flags = self.ttl, self.ip_flags
        if flow.protocol == Transport.TCP.number:
            packet = tcp(
                *ends, self.flags, payload, seq=self.seq, ack=self.ack, ip_flags=ip_flags, ttl=ttl
            )
        else:
            packet = udp(*ends, payload, ip_flags=ip_flags, ttl=ttl)
        if at_hand() == 6 and self.extensions:
            packet = with_headers(packet, *[IPv6ExtHdrDestOpt()] * self.extensions)
        both.send(packet, PRIVATE if is_private else PUBLIC)


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
        answers = sorted(both.model.answers)
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
        header = ip(
            self.source,
            self.target,
            self.protocol,
            frag=185,
            ip_flags=0 if self.is_last else MORE_FRAGMENTS,
            ttl=self.ttl,
        )
        is_private = self.source in BACKENDS
        both.send(header / Raw(bytes(self.payload)), PRIVATE if is_private else PUBLIC)


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
        sent = sorted(known)[self.which % len(known)].reverse
        ends = (str(sent.src), str(sent.dst), sent.sport, sent.dport)
        is_tcp = sent.protocol == Transport.TCP.number
        quoted = tcp(*ends, "A", b"data") if is_tcp else udp(*ends, b"data")
        errors = ERRORS[at_hand()]
        protocol, header = {4: (1, 20), 6: (58, 40)}[at_hand()]
        outer = ip(self.reporter or str(sent.dst), str(sent.src), protocol, ttl=self.ttl)
        error = errors[self.error % len(errors)].copy()
        packet = outer / error / Raw(bytes(quoted)[: header + self.quoted])
        both.send(packet, PRIVATE if self.is_private else PUBLIC)


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
    """All backends as they are desired from now on."""

    modes: Modes
    policies: Policies
    prefixes: tuple[Mapping[str, bool], ...]
    """Of clients, by service: whether each is let in."""

    def happen(self, both: Agreement) -> None:
        """Plan and apply."""
        both.rig.install(
            *services(both.rig.private_index, self.modes, self.policies, self.prefixes)
        )
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


PLAIN: Policies = (Policy(),) * len(SERVICES)
ALL_ACTIVE: Modes = ((BackendMode.ACTIVE, BackendMode.ACTIVE),) * len(SERVICES)

_segments = st.builds(
    Segment,
    flags=st.sampled_from(FLAGS),
    seq=st.sampled_from(SEQUENCE * 3 + FAR),
    ack=st.sampled_from(SEQUENCE * 3 + FAR),
    payload=st.sampled_from([0, 0, 1, 1460, 1473]),
    ttl=st.sampled_from([64, 64, 64, 64, 2, 1]),
    ip_flags=st.sampled_from([0, 0, 0, 0, 0, 2, MORE_FRAGMENTS]),
    extensions=st.sampled_from([0] * 14 + [6, 7]),
)
_clients = st.sampled_from(CLIENTS)
_client_ports = st.sampled_from(CLIENT_PORTS)
_services = st.integers(0, len(SERVICES) - 1)
_modes = st.tuples(
    *[st.tuples(*[st.sampled_from([BackendMode.ACTIVE, BackendMode.DRAINING,
                                   BackendMode.ENDING, None])] * 2)] * len(SERVICES)
)  # fmt: skip
POLICIES = st.tuples(
    *[st.builds(Policy, st.sampled_from(Scheduler), st.sampled_from([24, 31, 32]),
                st.sampled_from([0.0, 10.0]))] * len(SERVICES)
)  # fmt: skip
_prefixes = st.dictionaries(
    st.sampled_from(["192.0.2.10/31", "192.0.2.8/29", "192.0.2.0/24", "192.0.2.11", "10.0.0.0/8",
                     "0.0.0.0/0", "198.18.0.0/15", "10.0.0.3/32"]),
    st.booleans(),
)  # fmt: skip
_endings = st.sampled_from(
    [
        "",
        "",
        "c",
        "b",
        "C",
        "B",
        "r",
        "CBc",
        "BCb",
        "CbBc",
        "BcCb",
        "CB",
        "BC",
        "Cr",
        "Br",
        "CBr",
        "rb",
    ]
)

STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(LaterFragment, st.sampled_from(CLIENTS), st.sampled_from([VIP, world.SNAT]),
              st.sampled_from([6, 17]), st.sampled_from([8, 1480, 1488, 1488]),
              st.sampled_from([64, 64, 64, 1]), st.booleans()),
    st.builds(InPieces, _clients, _client_ports, st.sampled_from([8, 1488])),
    st.builds(IcmpError, st.integers(0, 15), st.booleans(),
              st.sampled_from([None, None, BACKEND, "192.0.2.1"]), st.integers(0, 7),
              st.sampled_from([8, 17, 18, 24]), st.sampled_from([64, 64, 64, 1]),
              st.sampled_from([True, True, False])),
    st.builds(FromClient, _clients, _client_ports, _services, _segments),
    st.builds(FromClient, _clients, _client_ports, _services, st.just(Segment("S", 999, 0))),
    st.builds(Burst, _clients, _services),
    st.builds(Conversation, _clients, _client_ports, st.integers(0, 1), _endings),
    st.builds(FromBackend, st.integers(0, 15), _segments),
    st.builds(FromBackend, st.integers(0, 15), _segments),
    st.builds(FromStranger, st.sampled_from([*BACKENDS, "10.0.0.77"]), st.sampled_from([6, 17]),
              st.integers(1998, 2006), _segments),
    st.builds(TimePasses, st.sampled_from([0.004, 0.5, 1, 3, 5, 6, 10, 30, 59, 60, 7200])),
    st.builds(TimePasses, st.sampled_from([1, 5, 10, 60])),
    st.builds(Collection),
    st.builds(PlanIsCutOff, st.sampled_from(BACKENDS), st.sampled_from([8080, 5353]),
              st.sampled_from(BackendMode), st.booleans()),
    st.builds(PlanIsCarriedOut, _modes, POLICIES, st.tuples(*[_prefixes] * len(SERVICES))),
)  # fmt: skip
