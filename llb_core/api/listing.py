"""List the connections of a balancer from its pinned maps: those asked for, in order."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from llb_core.api.connection_rows import Part, Rows, header
from llb_core.api.taking_turns import Piece, Pieces
from llb_core.datapath import reading
from llb_core.datapath.connection_columns import SORTS, Wanted, read_connections, read_first
from llb_core.datapath.family import pinned
from llb_core.datapath.layout import ConnectionState, records
from llb_core.datapath.programs import ticks_now
from llb_core.errors import ConfigurationError
from llb_core.model import Installed, Network, split_port
from llb_core.orders import Selection

STATES = {
    state.name.lower(): state for state in ConnectionState if state is not ConnectionState.CLAIMED
}


@dataclass(frozen=True, slots=True)
class Request:
    """Which connections, in what order, in what form. `client` is an address or a network, with a
    port behind a colon or not; `snat` one of our addresses, likewise; `limit` None means all."""

    service: str | None = None
    backend: str | None = None
    client: str | None = None
    snat: str | None = None
    states: Sequence[str] = ()
    sort: str = "age"
    limit: int | None = None
    as_json: bool = False

    def check(self) -> None:
        """Raise ConfigurationError, with the place, where something in it can't be meant."""
        if self.sort not in SORTS:
            raise ConfigurationError(f'sort: "{self.sort}": one of {", ".join(SORTS)}')
        for state in self.states:
            if state not in STATES:
                raise ConfigurationError(f'state: "{state}": one of {", ".join(STATES)}')
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit: {self.limit}: at least 1")
        if self.client is not None:
            network_and_port(self.client, "client")
        if self.snat is not None:
            network_and_port(self.snat, "snat")
        if self.backend is not None:
            Selection.parse(self.backend)

    def answer(self, balancer: str, source: str) -> Pieces:
        """Return the connections of a balancer that are asked for, as text, or as JSON:
        `{"source": …, "total": …, "connections": […]}`.

        Raises HostError where nothing is installed, ConfigurationError where a name is unknown.
        """
        self.check()
        parts: list[Part] = []
        names: set[str] = set()
        total = 0
        with pinned(balancer) as families:
            for number, family in sorted(families.items()):
                installed, of = family.installed(with_tables=False), records(number)
                now, wanted = ticks_now(), _wanted(self, installed)
                if self.limit is None:
                    found = read_connections(family.maps, of, now, wanted)
                    count = len(found)
                else:
                    found, count = read_first(family.maps, of, now, wanted, self.sort, self.limit)
                total += count
                services = {slot: each.name for slot, each in installed.services.items()}
                names |= set(services.values())
                parts.append(Part(of, found, services, reading.ticks_per_second(family.maps)))
        refuse_unknown(self.service, names)
        rows = Rows(parts, self.sort, limit=self.limit, as_json=self.as_json)
        if not self.as_json:
            return _between(header(parts), rows, b"")
        head = json.dumps({"source": source, "total": total})
        # What parts a row from the one before begins it.
        return _between(f'{head[:-1]}, "connections": ['.encode(), rows, b"\n]}\n", left_out=1)


def refuse_unknown(service: str | None, known: Collection[str]) -> None:
    """Raise ConfigurationError where a service is asked for that there is not."""
    if service is not None and service not in known:
        raise ConfigurationError(f'there is no service "{service}": see llb status')


def _between(head: bytes, rows: Rows, end: bytes, *, left_out: int = 0) -> Pieces:
    """Return rows, without so many of the first bytes, between a head and an end."""

    def make(number: int) -> Piece:
        if number == 0:
            return head
        if number > len(rows):
            return end
        piece = rows.piece(number - 1)
        return piece[left_out:] if number == 1 else piece

    return Pieces(len(rows) + 2, make)


def network_and_port(text: str, place: str) -> tuple[Network, int | None]:
    """Read an address or a network, and the port behind its last colon; IPv6 with a port stands in
    brackets."""
    try:
        host, port = split_port(text)
        return ipaddress.ip_network(host, strict=False), port
    except ValueError:
        raise ConfigurationError(
            f'{place}: "{text}" is no address: as 198.51.100.7, 198.51.100.7:40000, '
            "[2001:db8::7]:40000 or 198.51.100.0/24"
        ) from None


def _wanted(request: Request, installed: Installed) -> Wanted:
    services = backends = client = client_port = snat = snat_port = None
    if request.service is not None:
        services = frozenset(
            slot for slot, each in installed.services.items() if each.name == request.service
        )
    if request.backend is not None:
        selection = Selection.parse(request.backend)
        backends = frozenset(
            slot
            for slot, each in installed.backends.items()
            if each.endpoint.address == selection.address
            and selection.port in (None, each.endpoint.port)
        )
    if request.client is not None:
        client, client_port = network_and_port(request.client, "client")
    if request.snat is not None:
        snat, snat_port = network_and_port(request.snat, "snat")
    states = frozenset(STATES[state] for state in request.states) or None
    return Wanted(services, backends, states, client, client_port, snat, snat_port)
