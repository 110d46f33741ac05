"""The balancer as it ought to behave: what becomes of a packet, step by step, in Python.

A specification that runs. It knows the real settings, services, backends and tables (Maglev's, as
installed) and keeps connections of its own; the tests hold the classifier to it, packet by packet.
A connection here is one thing, so it can't fall apart into halves: what `bpf/` does about lone ones
is tested by example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from llb_core.config import LoadBalancerConfig
from llb_core.datapath.layout import ConnectionState, Verdict
from llb_core.model import BackendMode, Installed, InstalledBackend, Timeouts
from tests.bpf.harness.tables import Flow
from tests.bpf.model_connection import Connection, Side, Way, follow, is_free, since
from tests.bpf.model_packet import FIN, RST, SYN, TCP, Kind, Parsed, parse, rewrite
from tests.bpf.model_select import finish, select_hash

PORT_TRIES = 128


@dataclass(slots=True)
class Model:
    """The balancer: its surroundings, which the tests may change, and its connections."""

    settings: LoadBalancerConfig
    private_index: int
    macs: Mapping[int, bytes]
    """Of the interfaces, by their index."""
    installed: Installed
    ticks_per_second: int
    capacity: int
    way_to: Callable[[IPv4Address], Way | None]
    """The kernel's routes to clients."""
    has_socket: Callable[[Flow], bool] = lambda flow: False
    now: int = 0
    connections: dict[Flow, Connection] = field(default_factory=dict)
    answers: dict[Flow, Connection] = field(default_factory=dict)

    def receive(self, frame: bytes, interface: int, gso_size: int = 0) -> tuple[Verdict, bytes]:
        """Say what becomes of a frame; what is forwarded comes out rewritten, with blank
        checksums, and all else as it was."""
        packet = parse(frame, self.macs[interface], gso_size)
        if packet is None:
            return Verdict.PASS_UNPARSED, frame
        verdict, becomes = self._judge(packet, interface, gso_size)
        return verdict, frame if becomes is None else rewrite(frame, packet, becomes)

    def _judge(self, packet: Parsed, interface: int, gso: int) -> tuple[Verdict, Flow | None]:
        flow = packet.flow
        is_from_backend = any(flow.src in cidr for cidr in self.settings.backend_cidrs)
        if is_from_backend and interface != self.private_index:
            return Verdict.DROP_SPOOFED, None
        if packet.kind is not Kind.WHOLE:
            return self._judge_fragment(packet), None
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
        verdict = Verdict.FORWARD_TO_BACKEND
        is_steady = False
        if connection is not None:
            is_steady = self._is_steady(connection, connection.client, packet)
            is_over = self._is_ended(connection)
            if is_over and not packet.opens:
                return Verdict.PASS_NO_CONNECTION, None  # the stack resets it
            is_over |= connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED)
            if packet.opens and (is_over or self._is_idle(connection)):
                verdict = Verdict.FORWARD_NEW
                if self._backend(connection).mode is BackendMode.ACTIVE:
                    self._begin_anew(connection)
                else:
                    self._remove(connection)
                    connection = None
            elif packet.is_tcp:
                follow(connection, packet, connection.client, connection.server)
        if connection is None:
            return self._open(packet, gso)
        if not is_steady:
            connection.client.checked = self.now
        way = _way(self._backend(connection))
        return self._forward(connection.client, packet, way, gso, verdict, connection.becomes)

    def _open(self, packet: Parsed, gso: int) -> tuple[Verdict, Flow | None]:
        """A packet of no connection."""
        service = self._service(packet.flow)
        if service is None:
            return Verdict.PASS_NOT_OURS, None
        if not packet.opens:
            return Verdict.PASS_NO_CONNECTION, None
        hash_ = select_hash(packet.flow)
        backend = self._select(service, hash_)
        if backend is None:
            return Verdict.DROP_NO_BACKEND, None
        refusal = _refusal(packet, _way(backend), gso)
        if refusal is not None:
            return refusal, None
        to_client = self.way_to(packet.flow.src)
        if to_client is None:
            return Verdict.DROP_NO_ROUTE, None
        taken = self._take_port(packet.flow, backend, hash_)
        if isinstance(taken, Verdict):
            return taken, None
        is_tcp = packet.is_tcp
        connection = Connection(
            arrives=packet.flow,
            becomes=taken,
            service=service,
            backend=backend.slot,
            opened=self.now,
            to_client=to_client,
            client=Side(self.now, self.now, packets=1, bytes=packet.length),
            server=Side(self.now, self.now),
            state=ConnectionState.OPENING if is_tcp else ConnectionState.UDP,
        )
        self.connections[packet.flow] = connection
        self.answers[connection.answer] = connection
        return Verdict.FORWARD_NEW, taken

    def _begin_anew(self, connection: Connection) -> None:
        """The same client on the same tuple: it keeps backend and SNAT port."""
        is_tcp = connection.arrives.protocol == TCP
        connection.state = ConnectionState.OPENING if is_tcp else ConnectionState.UDP
        connection.is_answered = connection.was_reset = False
        connection.closed_first_by_backend = False
        connection.opened = self.now
        for side in (connection.client, connection.server):
            side.seen = self.now
            side.packets = side.bytes = 0
            side.has_closed = False

    # EGRESS

    def _send_to_client(
        self, connection: Connection, packet: Parsed, gso: int
    ) -> tuple[Verdict, Flow | None]:
        """A packet of a backend on a tuple that is a connection's."""
        if self._is_ended(connection):
            return Verdict.DROP_UNKNOWN_ANSWER, None
        is_steady = self._is_steady(connection, connection.server, packet)
        if packet.is_tcp:
            follow(connection, packet, connection.server, connection.client)
        else:
            connection.is_answered = True
        is_stale = since(connection.server.checked, self.now) >= self.ticks_per_second
        if not is_steady and is_stale:
            way = self.way_to(connection.arrives.src)
            if way is None:
                return Verdict.DROP_NO_ROUTE, None
            connection.to_client = way
            connection.server.checked = self.now
        return self._forward(
            connection.server,
            packet,
            connection.to_client,
            gso,
            Verdict.FORWARD_TO_CLIENT,
            connection.arrives.reverse,
        )

    # Both ways

    def _forward(
        self, side: Side, packet: Parsed, way: Way, gso: int, verdict: Verdict, becomes: Flow
    ) -> tuple[Verdict, Flow | None]:
        refusal = _refusal(packet, way, gso)
        if refusal is not None:
            return refusal, None
        side.seen = self.now
        side.packets += 1
        side.bytes += packet.length
        return verdict, becomes

    def _judge_fragment(self, packet: Parsed) -> Verdict:
        """Nothing of a service or of a connection may go up the stack."""
        flow = packet.flow
        if packet.kind is Kind.LATER_FRAGMENT:
            is_ours = any(
                service.is_reachable
                and service.key.endpoint.address == flow.dst
                and service.key.protocol.number == flow.protocol
                for service in self.installed.services.values()
            )
        else:
            is_ours = flow in self.connections or flow in self.answers
            is_ours |= self._service(flow) is not None
        return Verdict.DROP_FRAGMENT if is_ours else Verdict.PASS_NOT_OURS

    def _is_steady(self, connection: Connection, side: Side, packet: Parsed) -> bool:
        """Whether nothing can have changed: twin and route are looked up once a second."""
        if packet.flags & (SYN | FIN | RST):
            return False
        if since(side.checked, self.now) >= self.ticks_per_second:
            return False
        if connection.state is ConnectionState.UDP:
            return connection.is_answered
        return connection.state is ConnectionState.ESTABLISHED

    # Ports

    def _take_port(self, flow: Flow, backend: InstalledBackend, hash_: int) -> Flow | Verdict:
        """Find a tuple that no other connection to the backend has, and make it free: the first
        candidate that is unused or over; or else the one that its backend closed longest ago."""
        verdict = Verdict.DROP_NO_PORT
        oldest: Connection | None = None
        oldest_age = 0
        for address, port in self._candidates(flow, hash_):
            endpoint = backend.endpoint
            where = IPv4Address(int(endpoint.address))
            becomes = Flow(address, where, port, endpoint.port, flow.protocol)
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
            is_heard_of = age >= self._timeout(other)  # by its client alone
            if other.state is ConnectionState.CLOSED and not is_heard_of and age > oldest_age:
                oldest, oldest_age = other, age
        if oldest is None:
            return verdict
        self._remove(oldest)
        return oldest.becomes

    def _candidates(self, flow: Flow, hash_: int) -> Iterator[tuple[IPv4Address, int]]:
        """Yield what to try: the client's own port, or where it leads to, on each address of
        ours; then pseudo-random ones."""
        addresses = [IPv4Address(int(address)) for address in self.settings.snat_addresses]
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

    def _select(self, service: int, hash_: int) -> InstalledBackend | None:
        """Choose by the service's table; nobody who takes no new connections."""
        table = self.installed.services[service].table
        if not len(table):
            return None
        backend = self.installed.backends.get(int(table[hash_ * len(table) >> 32]))
        if backend is None or backend.mode is not BackendMode.ACTIVE:
            return None
        return backend if backend.service_slot == service else None

    def _backend(self, connection: Connection) -> InstalledBackend:
        return self.installed.backends[connection.backend]

    def _is_snat(self, flow: Flow) -> bool:
        low, high = self.settings.snat_ports
        return flow.dst in self.settings.snat_addresses and low <= flow.dport <= high


def _refusal(packet: Parsed, way: Way, gso_size: int) -> Verdict | None:
    """Say why a packet can't be sent this way, if it can't."""
    if not way.interface:
        return Verdict.DROP_NO_ROUTE
    if packet.ttl <= 1:
        return Verdict.DROP_TTL
    on_the_wire = packet.length
    if gso_size and packet.length > way.mtu:
        on_the_wire = packet.length - packet.payload + gso_size
    return Verdict.DROP_TOO_BIG if way.mtu and on_the_wire > way.mtu else None


def _way(backend: InstalledBackend) -> Way:
    if backend.route is None:
        return Way(0, 0, 0)
    return Way(int(backend.route.next_hop), backend.route.interface, backend.route.mtu)
