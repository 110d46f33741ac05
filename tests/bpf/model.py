"""The balancer as it ought to behave: what becomes of a packet, step by step, in Python.

A specification that runs. It knows the real settings, services, backends and tables (Maglev's, as
installed) and keeps connections of its own; the tests hold the classifier to it, packet by packet.
A connection here is one thing, so it can't fall apart into halves: what `bpf/` does about lone ones
is tested by example.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from llb_core.config import LoadBalancerConfig
from llb_core.datapath.layout import ConnectionState, Verdict
from llb_core.model import (
    Address,
    BackendMode,
    Installed,
    InstalledBackend,
    Scheduler,
    Table,
    Timeouts,
)
from llb_core.rules import NO_RULES
from tests.bpf.harness.tables import Flow
from tests.bpf.harness.tags import is_for_many, untagged
from tests.bpf.model_admission import Buckets, Source, is_let_in, source_of
from tests.bpf.model_connection import (
    FAR_WINDOW,
    WINDOW,
    Connection,
    Side,
    Way,
    follow,
    is_free,
    since,
)
from tests.bpf.model_fragments import First, Fragments
from tests.bpf.model_icmp import Quoted, quoted, refusal, rewrite_error
from tests.bpf.model_packet import (
    ETHERTYPES,
    EXTENSIONS,
    FIN,
    RST,
    SYN,
    TCP,
    UDP,
    Kind,
    Parsed,
    parse,
    rewrite,
)
from tests.bpf.model_select import (
    AGAIN,
    SECOND,
    TRIES,
    declines,
    finish,
    part_of_share,
    select_hash,
    source_hash,
)

PORT_TRIES = 128
PRESSED_TRIES = 16
OPENING_SEARCH = 4
OPENING_ROOM = 4
_OF_PACKETS = (
    "connections",
    "answers",
    "fragments",
    "cursor",
    "searched",
    "ring",
    "evicted",
    "buckets",
    "turns",
)
UNCHECKED = 0x8000
"""Ticks before now that say of a way, in 16 bits, that it is to be looked up."""


@dataclass(slots=True)
class Model:
    """The balancer: its surroundings, which the tests may change, and its connections."""

    family: int
    settings: LoadBalancerConfig
    private_index: int
    macs: Mapping[int, bytes]
    """Of the interfaces, by their index."""
    installed: Installed
    ticks_per_second: int
    capacity: int
    way_to: Callable[[Address], Way | None]
    """The kernel's routes to clients."""
    host_ports: frozenset[int] = frozenset()
    """Those that the host uses itself."""
    has_socket: Callable[[Flow], bool] = lambda flow: False
    now: int = 0
    connections: dict[Flow, Connection] = field(default_factory=dict)
    answers: dict[Flow, Connection] = field(default_factory=dict)
    fragments: Fragments = field(default_factory=Fragments)
    next_mtu: int = 0
    """Of the link that the packet at hand is to leave by."""
    places: int = 1
    cursor: int = 0
    """Of the ring of opening connections."""
    searched: int = 0
    """How many of these were searched for some that can give way."""
    ring: dict[int, Flow] = field(default_factory=dict)
    evicted: int = 0
    buckets: Buckets = field(init=False)
    turns: dict[int, int] = field(default_factory=dict)
    """Of services whose scheduler is round robin: taken so far."""

    def __post_init__(self) -> None:
        self.buckets = Buckets(self.ticks_per_second)

    def memory(self) -> bytes:
        """Return all that packets have left in it, to go back to by `recall`."""
        return pickle.dumps([getattr(self, name) for name in _OF_PACKETS])

    def recall(self, memory: bytes) -> None:
        """Go back to what it was then."""
        for name, value in zip(_OF_PACKETS, pickle.loads(memory), strict=True):
            setattr(self, name, value)

    def install(self, installed: Installed) -> None:
        """Take note of what is installed now. A service that gets another's slot begins anew."""
        before, self.installed = self.installed.services, installed
        for slot, service in installed.services.items():
            if slot not in before or before[slot].key != service.key:
                self.turns.pop(slot, None)
                self.buckets.services.pop(slot, None)

    def receive(self, frame: bytes, interface: int, gso_size: int = 0) -> tuple[Verdict, bytes]:
        """Say what becomes of a frame; what is forwarded comes out rewritten, with blank
        checksums, and all else as it was, but for tags of VLAN 0."""
        read = untagged(frame, self.macs[interface], ETHERTYPES[self.family])
        if read is None:
            return Verdict.DROP_EXTENSIONS, frame
        return self._judge_frame(read, interface, gso_size)

    def _judge_frame(self, frame: bytes, interface: int, gso_size: int) -> tuple[Verdict, bytes]:
        packet = parse(frame, self.macs[interface], gso_size, self.family)
        if packet is None:
            return Verdict.PASS_UNPARSED, frame
        if self._is_from_backend(packet) and interface != self.private_index:
            return Verdict.DROP_SPOOFED, frame
        if packet.kind is Kind.OTHER or is_for_many(frame):
            return Verdict.PASS_UNPARSED, frame
        if packet.kind is Kind.ICMP_ERROR:
            return self._judge_error(frame, packet, interface)
        verdict, becomes = self._judge(packet, gso_size)
        if becomes is not None:
            return verdict, rewrite(frame, packet, becomes)
        told = {
            Verdict.DROP_TTL: Verdict.REFUSE_TTL,
            Verdict.DROP_TOO_BIG: Verdict.REFUSE_TOO_BIG,
        }.get(verdict)
        if told is None or not packet.has_ports or self.way_to(packet.flow.src) is None:
            return verdict, frame
        return told, refusal(frame, packet, verdict, self.next_mtu)

    def _is_from_backend(self, packet: Parsed) -> bool:
        return any(packet.flow.src in cidr for cidr in self.settings.backend_cidrs)

    def _judge(self, packet: Parsed, gso: int) -> tuple[Verdict, Flow | None]:
        if packet.kind is Kind.UNREAD:
            is_ours = self._is_ours(packet.flow.dst)
            return Verdict.DROP_EXTENSIONS if is_ours else Verdict.PASS_UNPARSED, None
        if packet.kind is Kind.LATER_FRAGMENT:
            return self._follow_fragment(packet)
        verdict, becomes = self._judge_ports(packet, gso)
        if packet.kind is Kind.FIRST_FRAGMENT:
            self._note_fragment(packet, verdict, becomes)
        return verdict, becomes

    def _judge_ports(self, packet: Parsed, gso: int) -> tuple[Verdict, Flow | None]:
        """A packet with ports: one that is whole, or the first of a datagram."""
        flow, is_from_backend = packet.flow, self._is_from_backend(packet)
        if is_from_backend and flow in self.answers:
            return self._send_to_client(self.answers[flow], packet, gso)
        verdict, becomes = self._send_to_backend(packet, gso)
        if verdict is Verdict.PASS_NOT_OURS and is_from_backend and self._is_snat(flow):
            has_socket = self.has_socket(flow)
            return (Verdict.PASS_HOST_SOCKET if has_socket else Verdict.DROP_UNKNOWN_ANSWER), None
        return verdict, becomes

    # INGRESS

    def _send_to_backend(self, packet: Parsed, gso: int) -> tuple[Verdict, Flow | None]:
        """A packet of a client, or of anybody else who isn't a backend that answers."""
        connection = self.connections.get(packet.flow)
        if connection is None:
            return self._open(packet, gso)
        backend = self._backend(connection)
        is_over = self._is_ended(connection)
        if is_over and not packet.opens:
            return Verdict.PASS_NO_CONNECTION, None  # the stack resets it
        is_over |= connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED)
        begins_anew = packet.opens and (is_over or self._is_idle(connection))
        if begins_anew and backend.mode is not BackendMode.ACTIVE:
            self._remove(connection)
            return self._open(packet, gso)
        why_not = self._refusal(packet, _way(backend), gso)
        if why_not is not None:
            return why_not, None
        is_steady = self._is_steady(connection, connection.client, packet)
        if begins_anew:
            if not self._is_let_in(connection.service, packet.flow):
                return Verdict.DROP_DENIED, None
            # It keeps the place that it has, if it has one still.
            has_place = connection.state is not ConnectionState.CLOSED
            no_room = self._no_room(connection.service, packet.flow, has_place=has_place)
            if no_room is not None:
                return no_room, None
            self._begin_anew(connection, packet)
        else:
            follow(connection, packet, connection.client, connection.server, is_steady=is_steady)
        if not is_steady:
            connection.client.checked = self.now
        self._note(connection.client, packet)
        verdict = Verdict.FORWARD_NEW if begins_anew else Verdict.FORWARD_TO_BACKEND
        return verdict, connection.becomes

    def _open(self, packet: Parsed, gso: int) -> tuple[Verdict, Flow | None]:
        """A packet of no connection."""
        service = self._service(packet.flow)
        if service is None:
            return Verdict.PASS_NOT_OURS, None
        if not packet.opens:
            return Verdict.PASS_NO_CONNECTION, None
        if not self._is_let_in(service, packet.flow):
            return Verdict.DROP_DENIED, None
        hash_ = select_hash(packet.flow)
        backend = self._select(service, packet.flow, hash_)
        if backend is None:
            return Verdict.DROP_NO_BACKEND, None
        why_not = self._refusal(packet, _way(backend), gso)
        if why_not is not None:
            return why_not, None
        to_client = self.way_to(packet.flow.src)
        if to_client is None:
            return Verdict.DROP_NO_ROUTE, None
        no_room = self._no_room(service, packet.flow)
        if no_room is not None:
            return no_room, None
        taken = self._take_port(packet.flow, backend, hash_)
        if isinstance(taken, Verdict):
            if taken is Verdict.DROP_TABLE_FULL:
                self._make_room()
            return taken, None
        is_tcp = packet.is_tcp
        connection = Connection(
            arrives=packet.flow,
            becomes=taken,
            service=service,
            backend=backend.slot,
            opened=self.now,
            to_client=to_client,
            client=Side(
                self.now, self.now, packets=1, bytes=packet.length, next=_after_syn(packet)
            ),
            server=Side(self.now, self.now),
            state=ConnectionState.OPENING if is_tcp else ConnectionState.UDP,
        )
        self.connections[packet.flow] = connection
        self.answers[connection.answer] = connection
        self._note_opening(connection)
        return Verdict.FORWARD_NEW, taken

    def _is_let_in(self, service: int, flow: Flow) -> bool:
        policy = self.installed.services[service].policy
        return is_let_in(flow.src, policy.access, self.installed.rules.get(service, NO_RULES))

    def _no_room(self, service: int, flow: Flow, *, has_place: bool = False) -> Verdict | None:
        limits = self.installed.services[service].policy.limits
        source = source_of(service, flow.src)
        counts = self.loads()[0][service], self.source_loads().get(source, 0)
        return self.buckets.refusal(source, limits, *counts, self.now, has_place=has_place)

    def _begin_anew(self, connection: Connection, packet: Parsed) -> None:
        """The same client on the same tuple: it keeps backend and SNAT port."""
        connection.state = ConnectionState.OPENING if packet.is_tcp else ConnectionState.UDP
        connection.is_answered = connection.was_reset = connection.is_assured = False
        connection.closed_first_by_backend = False
        connection.opened = self.now
        for side in (connection.client, connection.server):
            side.seen = self.now
            side.packets = side.bytes = 0
            side.next = side.ack = 0
            side.has_closed = False
        connection.server.checked = self.now - UNCHECKED
        connection.client.next = _after_syn(packet)
        self._note_opening(connection)

    def _note_opening(self, connection: Connection) -> None:
        """Give it a place of the ring; who was there before goes, if it was never established."""
        connection.place = self.cursor % self.places
        self.cursor += 1
        before = self.ring.get(connection.place)
        self.ring[connection.place] = connection.arrives
        if before != connection.arrives:
            self._evict(before, connection.place)

    def _evict(self, noted: Flow | None, place: int) -> bool:
        """Remove a connection noted in a place, if it is opening still, and stands there."""
        other = self.connections.get(noted) if noted is not None else None
        if other is None or other.is_assured or other.place != place:
            return False
        self._remove(other)
        self.evicted += 1
        return True

    def _make_room(self) -> None:
        """The tables are full: the oldest opening connections give way, for the next ones."""
        made = 0
        for _ in range(OPENING_SEARCH):
            if self.searched >= self.cursor:
                return
            turn = max(self.searched, self.cursor - self.places)
            self.searched = turn + 1
            made += self._evict(self.ring.get(turn % self.places), turn % self.places)
            if made == OPENING_ROOM:
                return

    # EGRESS

    def _send_to_client(
        self, connection: Connection, packet: Parsed, gso: int
    ) -> tuple[Verdict, Flow | None]:
        """A packet of a backend on a tuple that is a connection's."""
        if self._is_ended(connection):
            return Verdict.DROP_UNKNOWN_ANSWER, None
        is_steady = self._is_steady(connection, connection.server, packet)
        if not is_steady and self._way_back(connection) is None:
            return Verdict.DROP_NO_ROUTE, None
        why_not = self._refusal(packet, connection.to_client, gso)
        if why_not is not None:
            return why_not, None
        follow(connection, packet, connection.server, connection.client, is_steady=is_steady)
        self._note(connection.server, packet)
        return Verdict.FORWARD_TO_CLIENT, connection.arrives.reverse

    # Both ways

    def _note(self, side: Side, packet: Parsed) -> None:
        side.seen = self.now
        side.packets += 1
        side.bytes += packet.length

    def _refusal(self, packet: Parsed, way: Way, gso_size: int) -> Verdict | None:
        """Say why a packet can't be sent this way, if it can't."""
        if not way.interface:
            return Verdict.DROP_NO_ROUTE
        if packet.ttl <= 1:
            return Verdict.DROP_TTL
        on_the_wire = packet.length
        if gso_size and packet.length > way.mtu:
            on_the_wire = packet.length - packet.payload + gso_size
        self.next_mtu = way.mtu
        return Verdict.DROP_TOO_BIG if way.mtu and on_the_wire > way.mtu else None

    # Fragments

    def _note_fragment(self, packet: Parsed, verdict: Verdict, becomes: Flow | None) -> None:
        """Remember what became of a datagram's first fragment."""
        if becomes is not None:
            self.fragments.note(packet, First(self.now, verdict, becomes, self.next_mtu))
        elif verdict.name.startswith("PASS") and self._is_vip(packet.flow):
            self.fragments.note(packet, First(self.now, Verdict.PASS_NOT_OURS, None, 0))

    def _follow_fragment(self, packet: Parsed) -> tuple[Verdict, Flow | None]:
        """One without ports goes where the first one went."""
        first = self.fragments.first_of(packet, self.now, self.ticks_per_second)
        if first is None:
            flow = packet.flow
            is_ours = self._is_vip(flow)
            if flow.src.version == 6 and flow.protocol in EXTENSIONS:
                is_ours = self._is_any_vip(flow.dst)  # TCP or UDP may be what they lead to
            is_ours |= packet.is_cut and flow.dst in self.settings.snat_addresses
            return Verdict.DROP_FRAGMENT if is_ours else Verdict.PASS_NOT_OURS, None
        if first.becomes is None:
            return first.verdict, None
        if packet.ttl <= 1:
            return Verdict.DROP_TTL, None
        if first.mtu and packet.length > first.mtu:
            return Verdict.DROP_TOO_BIG, None
        is_to_client = first.verdict is Verdict.FORWARD_TO_CLIENT
        return first.verdict if is_to_client else Verdict.FORWARD_TO_BACKEND, first.becomes

    def _is_vip(self, flow: Flow) -> bool:
        """Whether there are services of that protocol on the address that it goes to, or what is
        left of one that was withdrawn."""
        return any(
            service.key.endpoint.address == flow.dst
            and service.key.protocol.number == flow.protocol
            for service in self.installed.services.values()
        )

    def _is_ours(self, address: Address) -> bool:
        """Whether connections have that address: a VIP, or one of the balancer's own."""
        return address in self.settings.snat_addresses or self._is_any_vip(address)

    def _is_any_vip(self, address: Address) -> bool:
        return any(self._is_vip(Flow(address, address, 0, 0, protocol)) for protocol in (TCP, UDP))

    # ICMP errors

    def _judge_error(self, frame: bytes, packet: Parsed, interface: int) -> tuple[Verdict, bytes]:
        """An error about a packet of ours goes to the end that the packet came from."""
        about = quoted(frame, packet)
        if about is None:
            return Verdict.PASS_UNPARSED, frame
        answer = about.flow.reverse
        is_to_client = answer in self.answers
        connection = (self.answers if is_to_client else self.connections).get(answer)
        if connection is None:
            return Verdict.PASS_NOT_OURS, frame
        if is_to_client and interface != self.private_index:
            return Verdict.DROP_SPOOFED, frame
        if self._is_ended(connection):
            return Verdict.PASS_NOT_OURS, frame
        if not _can_be_under_way(connection, about, is_to_client=is_to_client):
            return Verdict.DROP_STALE_ERROR, frame
        if is_to_client:
            becomes = connection.arrives.reverse
            way = self._way_back(connection)
        else:
            becomes, way = connection.becomes, _way(self._backend(connection))
        if way is None:
            return Verdict.DROP_NO_ROUTE, frame
        why_not = self._refusal(packet, way, 0)
        if why_not is not None:
            return why_not, frame
        is_end = is_to_client and about.is_unreachable_port and packet.flow.src == answer.src
        if is_end and about.flow.protocol != TCP:
            self._remove(connection)
        return Verdict.FORWARD_ERROR, rewrite_error(frame, packet, about, becomes)

    def _way_back(self, connection: Connection) -> Way | None:
        """The way to the client, looked up anew after a second."""
        if not self._is_checked(connection.server):
            way = self.way_to(connection.arrives.src)
            if way is None:
                return None
            connection.to_client = way
            connection.server.checked = self.now
        return connection.to_client

    def _is_steady(self, connection: Connection, side: Side, packet: Parsed) -> bool:
        """Whether nothing can have changed: twin and route are looked up once a second."""
        if packet.flags & (SYN | FIN | RST):
            return False
        if not self._is_checked(side):
            return False
        if connection.state is ConnectionState.UDP:
            is_client = side is connection.client
            return connection.is_assured if is_client else connection.is_answered
        return connection.state is ConnectionState.ESTABLISHED

    def _is_checked(self, side: Side) -> bool:
        """Whether its twin and way were looked up, and a packet came, within the last second."""
        return max(since(each, self.now) for each in (side.seen, side.checked)) < (
            self.ticks_per_second
        )

    # Ports

    def _take_port(self, flow: Flow, backend: InstalledBackend, hash_: int) -> Flow | Verdict:
        """Find a tuple that no other connection to the backend has, and make it free: the first
        candidate that is unused or over; else the one that its backend closed longest ago; else
        the oldest that was never established, which goes early where most are of that kind."""
        verdict = Verdict.DROP_NO_PORT
        closed: Connection | None = None
        opening: Connection | None = None
        closed_age = opening_age = openings = 0
        for turn, (address, port) in enumerate(self._candidates(flow, hash_)):
            if turn == PRESSED_TRIES and openings > PRESSED_TRIES // 2 and opening is not None:
                self._remove(opening)
                self.evicted += 1
                return opening.becomes
            if port in self.host_ports:
                continue
            endpoint = backend.endpoint
            becomes = Flow(address, endpoint.address, port, endpoint.port, flow.protocol)
            other = self.answers.get(becomes.reverse)
            if other is None:
                if len(self.answers) < self.capacity:
                    return becomes
                verdict = Verdict.DROP_TABLE_FULL
                continue
            if is_free(other) or self._is_idle(other):
                self._remove(other)
                return becomes
            age = since(other.server.seen, self.now)
            if age >= self._timeout(other):
                continue  # heard of by its client alone
            if other.state is ConnectionState.CLOSED:
                if age > closed_age:
                    closed, closed_age = other, age
            elif not other.is_assured:
                openings += 1
                age = since(other.opened, self.now)
                if age >= opening_age:
                    opening, opening_age = other, age
        taken = closed or opening
        if taken is None:
            return verdict
        self._remove(taken)
        self.evicted += taken is opening
        return taken.becomes

    def _candidates(self, flow: Flow, hash_: int) -> Iterator[tuple[Address, int]]:
        """Yield what to try: the client's own port, or where it leads to, on each address of
        ours; then pseudo-random ones."""
        addresses = self.settings.snat_addresses
        low, high = self.settings.snat_ports
        size = high - low + 1
        if not addresses:
            return
        for turn in range(PORT_TRIES):
            if turn < len(addresses):
                place = hash_ + turn
                offset = flow.sport - low if low <= flow.sport <= high else flow.sport % size
            else:
                place = finish(hash_ + turn * 0x9E3779B9)
                offset = finish(place ^ 0x5BD1E995) * size >> 32
            yield addresses[(place & 0xFFFF) % len(addresses)], low + offset

    # The end

    def collect(self) -> int:
        """Remove what is over; return how many connections that were."""
        over = [
            connection
            for connection in self.connections.values()
            if self._is_ended(connection) or self._is_idle(connection)
        ]
        for connection in over:
            self._remove(connection)
        return len(over)

    def _is_idle(self, connection: Connection) -> bool:
        """Whether neither side was heard of for as long as the state allows."""
        timeout = self._timeout(connection)
        return all(
            since(side.seen, self.now) >= timeout for side in (connection.client, connection.server)
        )

    def _timeout(self, connection: Connection) -> int:
        timeouts: Timeouts = self.installed.services[connection.service].timeouts
        seconds = {
            ConnectionState.OPENING: timeouts.opening,
            ConnectionState.ESTABLISHED: timeouts.established,
            ConnectionState.CLOSING: timeouts.closing,
            ConnectionState.CLOSED: (
                timeouts.closed if connection.closed_first_by_backend else timeouts.closing
            ),
            ConnectionState.UDP: timeouts.udp,
        }[connection.state]
        return round(seconds * self.ticks_per_second)

    def _is_ended(self, connection: Connection) -> bool:
        """Whether its backend's connections count as absent."""
        mode = self._backend(connection).mode
        is_udp = connection.arrives.protocol != TCP
        return mode is BackendMode.ENDING or (mode is BackendMode.RETIRED and is_udp)

    def _remove(self, connection: Connection) -> None:
        del self.connections[connection.arrives]
        del self.answers[connection.answer]

    # What is installed

    def _service(self, flow: Flow) -> int | None:
        for slot, service in self.installed.services.items():
            endpoint, number = service.key.endpoint, service.key.protocol.number
            wanted = (endpoint.address, endpoint.port, number)
            if service.is_reachable and wanted == (flow.dst, flow.dport, flow.protocol):
                return slot
        return None

    def _select(self, service: int, flow: Flow, hash_: int) -> InstalledBackend | None:
        """Choose by the service's scheduler; nobody who takes no new connections."""
        table, policy = (
            self.installed.services[service].table,
            self.installed.services[service].policy,
        )
        if not len(table):
            return None
        if policy.scheduler is Scheduler.SOURCE:
            hash_ = source_hash(flow.src, policy.affinity_prefix)
        ramp = int(policy.slow_start * self.ticks_per_second)
        backend = None
        for _ in range(TRIES):
            if policy.scheduler is Scheduler.ROUND_ROBIN:
                hash_ = self.turns.get(service, 0)
                self.turns[service] = hash_ + 1
                slot = int(table[hash_ % len(table)])
            elif policy.scheduler is Scheduler.LEAST_CONNECTIONS:
                slot = self._emptier(table, hash_, ramp)
            else:
                slot = _at(table, hash_)
            backend = self.installed.backends.get(slot)
            if backend is None or not declines(self._part(backend, ramp), hash_):
                break
            hash_ = finish(hash_ + AGAIN)
        if backend is None or backend.mode is not BackendMode.ACTIVE:
            return None
        return backend if backend.service_slot == service else None

    def _emptier(self, table: Table, hash_: int, ramp: int) -> int:
        """Of two drawn, the one with fewer connections for its weight, as far as that has grown."""
        one, two = _at(table, hash_), _at(table, finish(hash_ ^ SECOND))
        first, second = (self.installed.backends.get(slot) for slot in (one, two))
        if first is None or second is None:
            return one
        loads = self.loads()[1]
        weights = [each.weight * self._part(each, ramp) for each in (first, second)]
        return two if loads[two] * weights[0] < loads[one] * weights[1] else one

    def _part(self, backend: InstalledBackend, ramp: int) -> int:
        return part_of_share(backend.started, ramp, self.now)

    def loads(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return how many connections that have not closed each service and each backend has."""
        services = dict.fromkeys(self.installed.services, 0)
        backends = dict.fromkeys(self.installed.backends, 0)
        for connection in self.connections.values():
            if connection.state is not ConnectionState.CLOSED:
                services[connection.service] += 1
                backends[connection.backend] += 1
        return services, backends

    def source_loads(self) -> dict[Source, int]:
        """Return the same of clients, where their service limits what each may have."""
        found: Counter[Source] = Counter()
        for connection in self.connections.values():
            service = self.installed.services[connection.service]
            is_limited = service.policy.limits.source_connections
            if is_limited and connection.state is not ConnectionState.CLOSED:
                found[source_of(connection.service, connection.arrives.src)] += 1
        return dict(found)

    def _backend(self, connection: Connection) -> InstalledBackend:
        return self.installed.backends[connection.backend]

    def _is_snat(self, flow: Flow) -> bool:
        low, high = self.settings.snat_ports
        return flow.dst in self.settings.snat_addresses and low <= flow.dport <= high


def _can_be_under_way(connection: Connection, about: Quoted, *, is_to_client: bool) -> bool:
    """Whether its sender has sent what an error quotes, and its receiver not acknowledged it."""
    if about.flow.protocol != TCP:
        return True
    sender, receiver = connection.client, connection.server
    if not is_to_client:
        sender, receiver = receiver, sender
    if not connection.is_answered:
        return (sender.next - about.seq) & 0xFFFFFFFF < WINDOW
    if not sender.next or not receiver.next:
        return True
    if since(receiver.ack, sender.next) < 0:
        behind = about.seq - receiver.ack + 1 if is_to_client else sender.next - about.seq
        return behind & 0xFFFFFFFF < FAR_WINDOW
    return since(receiver.ack, about.seq) >= -1 and since(about.seq, sender.next) >= 0


def _at(table: Table, hash_: int) -> int:
    return int(table[hash_ * len(table) >> 32])


def _way(backend: InstalledBackend) -> Way:
    if backend.route is None:
        return Way(0, 0, 0)
    return Way(int(backend.route.next_hop), backend.route.interface, backend.route.mtu)


def _after_syn(packet: Parsed) -> int:
    """The sequence number of what follows a SYN, and what data it carries."""
    return (packet.seq + packet.payload + 1) & 0xFFFFFFFF if packet.is_tcp else 0
