"""A daemon that answers with everything that can be in an answer, without there being one."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from llb_core.api.reading_process import Question, Send
from llb_core.api.table_reader import Sender
from llb_core.api.top import Top
from llb_core.ending import Ended
from llb_core.model import Address, Endpoint, Order, OrderKind, ServiceBackend, Transport
from llb_core.orders import Selection
from llb_core.past_connections import PastConnection, Seen

WEB = ("web", Endpoint(ipaddress.ip_address("10.0.0.2"), 8080))
_TRAFFIC = dict.fromkeys(
    ("opened", "packets_in", "bytes_in", "packets_out", "bytes_out", "drops"), 7
)
_RATES = dict.fromkeys(("opened", "packets", "bytes", "drops"), 1.5)


class Told:
    """Hears one event of each kind."""

    def __init__(self, kinds: Collection[str]) -> None:
        self._events: list[dict[str, Any]] = [
            {"time": 1.0, "kind": kind, "service": "web", "backend": "10.0.0.2:8080"}
            for kind in kinds
        ]

    async def read(self) -> list[dict[str, Any]]:
        """Return them, and then be gone."""
        if not self._events:
            raise ConnectionResetError
        events, self._events = self._events, []
        return events


class Answering:
    """Knows one backend."""

    async def status(self) -> dict[str, Any]:
        """Say how everything is."""
        source = {
            "provider": "static", "is_ready": True, "is_stale": False, "age": 1.5, "error": ""
        }  # fmt: skip
        web = {
            "name": "web",
            "addresses": ["203.0.113.10:80/tcp"],
            "backends": 1,
            "active": 1,
            "unhealthy": 0,
            "reasons": {},
            "differing": 1,
            "provider_weights": {"10.0.0.2:8080": [1, 2]},
            "is_kept": False,
            "unserved": [],
            "connections": None,
            "rates": _RATES,
            "sources": [source],
            **_TRAFFIC,
        }
        return {
            "source": "daemon",
            "name": "llb",
            "version": "0",
            "pid": 1,
            "config": "/etc/llb/llb.toml",
            "started": 1.0,
            "turned": None,
            "public_interfaces": ["eth0"],
            "private_interface": "eth1",
            "snat_addresses": ["10.0.0.1"],
            "listen": None,
            "listen_error": "",
            "max_connections": 1000,
            "families": [4],
            "connections": 3,
            "connections_by_state": {"opening": 3},
            "collection": {"removed": 1, "lone_halves": 0, "seconds": 0.1},
            "services": [web],
            "verdicts": {"forward_new": 1},
        }

    async def read_tables(self, question: Question) -> bytes:
        """Return one connection, or one client."""
        question.check()
        numbers = dict.fromkeys(("packets_in", "packets_out", "bytes_in", "bytes_out"), 7)
        if isinstance(question, Top):
            row = {"name": "192.0.2.1", "connections": 1, "opened": 0.5, "packets": 2, "bytes": 80}
            top = [row | numbers]
            answer = {"source": "daemon", "seconds": 1.0, "by": question.by, "top": top}
        else:
            connection = {
                "service": "web",
                "protocol": "tcp",
                "client": "192.0.2.1:4000",
                "vip": "203.0.113.10:80",
                "snat": "10.0.0.1:4000",
                "backend": "10.0.0.2:8080",
                "state": "established",
                "age": 1.5,
                "idle": 0.0,
                **numbers,
            }
            answer = {"source": "daemon", "total": 1, "connections": [connection]}
        return json.dumps(answer).encode()

    @asynccontextmanager
    async def tables_onto(self, connection: int, question: Question) -> AsyncIterator[Send]:
        """Write the same onto a connection."""
        text = await self.read_tables(question)

        async def send(is_chunked: bool) -> None:
            Sender(connection, is_chunked=is_chunked).send(text)

        yield send

    def services(self) -> frozenset[str]:
        """Return the names of all services."""
        return frozenset({"web"})

    def backends_known(self) -> frozenset[ServiceBackend]:
        """Return the only one."""
        return frozenset({WEB})

    def snat_addresses(self) -> tuple[Address, ...]:
        """Return the only one."""
        return (ipaddress.ip_address("10.0.0.1"),)

    async def past_connections(self, seen: Seen) -> tuple[list[PastConnection], float]:
        """Tell of one connection that there was."""
        of = {
            "client": "192.0.2.9:4001",
            "vip": "203.0.113.10:80",
            "snat": f"{seen.snat.network_address}:{seen.snat_port}",
            "backend": "10.0.0.2:8080",
        }
        client, vip, snat, backend = map(Endpoint.parse, of.values())
        past = PastConnection("web", Transport.TCP, client, vip, snat, backend, 100.0, 101.5)
        return [past], 50.0

    @contextmanager
    def listening(self, kinds: Collection[str]) -> Iterator[Told]:
        """Tell of one event, and hang up."""
        yield Told(kinds)

    async def drops(self) -> dict[str, Any]:
        """Say which packets were dropped."""
        packet = {
            "time": 1.0,
            "interface": 2,
            "bytes": 40,
            "flags": 2,
            "protocol": "tcp",
            "source": "192.0.2.1:4000",
            "destination": "203.0.113.10:80",
            "service": "web",
            "backend": None,
        }
        why = {
            "reason": "drop_ttl",
            "packets": 1,
            "meaning": "",
            "remedy": "",
            "by": [{"service": "web", "backend": None, "packets": 1}],
            "last": [packet],
        }
        return {"source": "daemon", "drops": [why]}

    async def backends(self) -> dict[str, Any]:
        """Say how each backend is."""
        order = {
            "order": "drain", "by": "root", "at": 1.0, "why": "", "weight": None, "deadline": None,
            "done": None,
        }  # fmt: skip
        view = {
            "service": "web",
            "backend": "10.0.0.2:8080",
            "weight": 1,
            "provider_weights": [1, 2],
            "mode": "draining",
            "health": "healthy",
            "reason": "",
            "since": None,
            "orders": [order],
            "rates": None,
            "connections": 3,
            **_TRAFFIC,
        }
        return {"source": "daemon", "backends": [view]}

    async def metrics(self) -> bytes:
        """Tell Prometheus."""
        return b"llb_up 1\n"

    async def plan(self) -> dict[str, Any]:
        """Say what the next turn would change."""
        return {"source": "daemon", "changes": ["open 203.0.113.10:80/tcp to service web"]}

    async def order(self, selection: Selection, order: Order) -> frozenset[ServiceBackend]:
        """Give an order."""
        return selection.of({WEB})

    async def take_back(
        self, selection: Selection, kind: OrderKind, by: str, why: str
    ) -> frozenset[ServiceBackend]:
        """Take one back."""
        return selection.of({WEB})

    async def kill_of_client(
        self, client: Endpoint, vip: Endpoint | None, by: str, why: str
    ) -> Ended:
        """End a connection."""
        return Ended()

    async def kill_of_backend(self, selection: Selection, by: str, why: str) -> Ended:
        """End those of a backend."""
        selection.of({WEB})
        return Ended()

    async def reload(self, *, dry_run: bool) -> dict[str, Any]:
        """Reload."""
        of: dict[str, list[str]] = {"settings": [], "changes": [], "complaints": []}
        return {"source": "daemon", "is_applied": not dry_run, **of}
