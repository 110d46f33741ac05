"""An HTTP server that behaves as a Consul agent does, as far as the provider can tell: over real
sockets, with indexes and blocking queries, ACLs and TLS, and with faults on demand.

Its writes are those of the agent's own API, so that tests drive it and a real agent by the same
calls.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NODE = {"ID": "5d9c1f0c", "Node": "node-1", "Address": "10.1.0.1", "Datacenter": "dc1"}
LONGEST_WAIT = 600.0
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Request:
    """A query that the agent has had."""

    path: str
    params: Mapping[str, list[str]]
    headers: Mapping[str, str]

    @property
    def index(self) -> int:
        return int(self.params.get("index", ["0"])[0])


@dataclass
class Instance:
    """A service's instance, as it was registered."""

    name: str
    id: str
    address: str = ""
    port: int = 0
    tags: list[str] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=lambda: {"Passing": 1, "Warning": 1})
    checks: dict[str, str] = field(default_factory=dict)


Fault = Callable[["Handler"], None]
"""What the agent does instead of answering a query of health."""


class FakeConsul:
    """A Consul agent on a port of its own of 127.0.0.1; `start` and `stop` it at will."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.port = 0
        self.lock = threading.Condition()
        self.requests: list[Request] = []
        self.blocked = 0
        """Blocking queries that wait at this moment."""
        self.connections = 0
        self.fault: Fault | None = None
        self.extra_headers: dict[str, str] = {}
        self.tokens: dict[str, set[str]] | None = None
        """The services that each token may read; None: there are no ACLs."""
        self.index = 100
        self.never_blocks = False
        self._indexes: dict[str, int] = {}
        self._restored = 0
        self._instances: dict[str, Instance] = {}
        self._node_checks = {"serfHealth": "passing"}
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """End as an agent that is killed does: with all its connections."""
        server, self._server = self._server, None
        if server is not None:
            server.is_closing.set()
            with self.lock:
                self.lock.notify_all()
            server.shutdown()
            server.server_close()
            server.sever()

    def restore_index(self, index: int) -> None:
        """Go back, as the servers do when an older snapshot is restored."""
        with self.lock:
            self.index = index
            self._indexes = dict.fromkeys(self._indexes, index)
            self._restored += 1
            self.lock.notify_all()

    def touch(self, service: str) -> None:
        """Move a service's index on though nothing about it is another."""
        with self.lock:
            self._moved(service)

    def health_requests(self) -> list[Request]:
        with self.lock:
            return [each for each in self.requests if each.path.startswith("/v1/health/")]

    def identities(self) -> set[str]:
        with self.lock:
            return set(self._instances)

    def register(self, body: Mapping[str, Any]) -> None:
        given = {key.casefold(): value for key, value in body.items()}
        instance = Instance(
            name=given["name"],
            id=given.get("id") or given["name"],
            address=given.get("address", ""),
            port=given.get("port", 0),
            tags=given.get("tags") or [],
            meta=given.get("meta") or {},
        )
        instance.weights |= given.get("weights") or {}
        for check in given.get("checks") or []:
            values = {key.casefold(): value for key, value in check.items()}
            identity = values.get("checkid") or f"service:{instance.id}"
            instance.checks[identity] = values.get("status", "critical")
        with self.lock:
            self._instances[instance.id] = instance
            self._moved(instance.name)

    def deregister(self, identity: str) -> None:
        with self.lock:
            self._moved(self._instances.pop(identity).name)

    def set_check(self, check: str, status: str | None) -> None:
        """Set a check of an instance's, or take it away."""
        with self.lock:
            for instance in self._instances.values():
                if check in instance.checks or check.endswith(f":{instance.id}"):
                    if status is None:
                        instance.checks.pop(check, None)
                    else:
                        instance.checks[check] = status
                    self._moved(instance.name)

    def maintain_node(self, *, is_on: bool) -> None:
        with self.lock:
            self._node_checks.pop("_node_maintenance", None)
            if is_on:
                self._node_checks["_node_maintenance"] = "critical"
            for name in {each.name for each in self._instances.values()}:
                self._moved(name)

    def wait_for(self, service: str, request: Request, closing: threading.Event) -> int:
        """Return the service's index, once it is beyond the request's or the time is up."""
        limit = _seconds(request.params.get("wait", ["5m"])[0])
        limit = min(limit, LONGEST_WAIT)
        until = time.monotonic() + limit + random.uniform(0, limit / 16)
        with self.lock:
            restored = self._restored
            self.blocked += 1
            try:
                while (
                    request.index
                    and not self.never_blocks
                    and self._index(service) <= request.index
                    and self._restored == restored
                    and not closing.is_set()
                    and (left := until - time.monotonic()) > 0
                ):
                    self.lock.wait(left)
            finally:
                self.blocked -= 1
            return self._index(service)

    def entries(self, service: str, params: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        with self.lock:
            entries = [
                self._entry(each) for each in self._instances.values() if each.name == service
            ]
        for tag in params.get("tag", []):
            entries = [each for each in entries if tag in each["Service"]["Tags"]]
        for expression in params.get("filter", []):
            matches = _filter(expression)
            entries = [each for each in entries if matches(each)]
        return entries

    def _entry(self, instance: Instance) -> dict[str, Any]:
        checks = self._node_checks | instance.checks
        return {
            "Node": NODE,
            "Service": {
                "ID": instance.id,
                "Service": instance.name,
                "Tags": instance.tags,
                "Address": instance.address,
                "Meta": instance.meta,
                "Port": instance.port,
                "Weights": instance.weights,
                "EnableTagOverride": False,
            },
            "Checks": [
                {"Node": NODE["Node"], "CheckID": check, "Name": check, "Status": status}
                for check, status in checks.items()
            ],
        }

    def _index(self, service: str) -> int:
        return self._indexes.get(service, 1)

    def _moved(self, service: str) -> None:
        self.index += 1
        self._indexes[service] = self.index
        self.lock.notify_all()


class Server(ThreadingHTTPServer):
    """The sockets of a fake agent."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, fake: FakeConsul) -> None:
        self.fake = fake
        self.is_closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._taken = threading.Lock()
        super().__init__(("127.0.0.1", fake.port), Handler)
        if fake.tls is not None:
            self.socket = fake.tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._taken:
            self._connections.add(request)
            self.fake.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._taken:
            self._connections.discard(request)
        super().shutdown_request(request)

    def sever(self) -> None:
        with self._taken:
            for each in self._connections:
                # The connection may be gone, or still be in the middle of its handshake.
                try:
                    socket.socket.shutdown(each, socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away and handshakes that fail are what is tested."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    @property
    def fake(self) -> FakeConsul:
        return self.server.fake

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        params = parse_qs(url.query, keep_blank_values=True)
        request = Request(unquote(url.path), params, dict(self.headers.items()))
        with self.fake.lock:
            self.fake.requests.append(request)
        if request.path == "/v1/agent/self":
            self.answer(
                200, {"Config": {"NodeName": NODE["Node"]}, "Member": {"Addr": NODE["Address"]}}
            )
        elif request.path.startswith("/v1/health/service/"):
            if self.fake.fault is not None:
                self.fake.fault(self)
            else:
                self._health(request, request.path.removeprefix("/v1/health/service/"))
        else:
            self.answer(404, None)

    def do_PUT(self) -> None:
        url = urlsplit(self.path)
        enable = parse_qs(url.query).get("enable", [""])[0] == "true"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match unquote(url.path).removeprefix("/v1/agent/").split("/"):
            case ["service", "register"]:
                self.fake.register(json.loads(body))
            case ["service", "deregister", identity]:
                self.fake.deregister(identity)
            case ["service", "maintenance", identity]:
                self.fake.set_check(
                    f"_service_maintenance:{identity}", "critical" if enable else None
                )
            case ["maintenance"]:
                self.fake.maintain_node(is_on=enable)
            case ["check", "pass" | "warn" | "fail" as verb, check]:
                status = {"pass": "passing", "warn": "warning", "fail": "critical"}[verb]
                self.fake.set_check(check, status)
            case _:
                return self.answer(404, None)
        return self.answer(200, None)

    def _health(self, request: Request, service: str) -> None:
        if request.params.get("dc", ["dc1"]) != ["dc1"]:
            return self.answer(500, "No path to datacenter")
        if "stale" in request.params and "consistent" in request.params:
            return self.answer(
                400, "Cannot specify ?stale with ?consistent, conflicting semantics."
            )
        token = request.headers.get("X-Consul-Token")
        readable = None if self.fake.tokens is None else self.fake.tokens.get(token or "", set())
        if token and self.fake.tokens is not None and token not in self.fake.tokens:
            return self.answer(403, "ACL not found")
        index = self.fake.wait_for(service, request, self.server.is_closing)
        if self.server.is_closing.is_set():
            self.close_connection = True
            return None
        try:
            entries = self.fake.entries(service, request.params)
        except ValueError as error:
            return self.answer(400, str(error))
        headers = {
            "X-Consul-Index": str(index),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
            "X-Consul-Default-ACL-Policy": "allow" if readable is None else "deny",
        }
        if readable is not None and service not in readable:
            if token and entries:
                headers["X-Consul-Results-Filtered-By-ACLs"] = "true"
            entries = []
        return self.answer(200, entries, headers | self.fake.extra_headers)

    def answer(
        self, status: int, content: object, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with text, bytes as they are, or anything else as JSON."""
        if isinstance(content, bytes):
            body = content
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            body = b"" if content is None else text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature
        """Say nothing."""


def says(
    status: int,
    content: object,
    *,
    index: str | None = "100",
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """Answer with this, whatever the question."""
    found = {} if index is None else {"X-Consul-Index": index}
    return lambda handler: handler.answer(status, content, {**found, **(headers or {})})


def hangs(handler: Handler) -> None:
    """Take the question and never answer."""
    handler.server.is_closing.wait()
    handler.close_connection = True


def drops(handler: Handler) -> None:
    """Hang up without an answer."""
    handler.close_connection = True


def breaks_off(handler: Handler) -> None:
    """Hang up in the middle of an answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 100\r\nContent-Length: 1000\r\n\r\n[]")
    handler.close_connection = True


def trickles_headers(handler: Handler) -> None:
    """Send a byte now and then, and never come to the answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 100\r\nX-Slow: ")
    _trickle(handler)


def trickles_body(handler: Handler) -> None:
    """Send a byte of the answer now and then."""
    handler.wfile.write(
        b"HTTP/1.1 200 OK\r\nX-Consul-Index: 100\r\nContent-Length: 1000000\r\n\r\n["
    )
    _trickle(handler)


def never_ends(handler: Handler) -> None:
    """Send an answer without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 100\r\n\r\n[")
    piece = b"{}," * 100_000
    try:
        while not handler.server.is_closing.is_set():
            handler.wfile.write(piece)
    except OSError:
        handler.close_connection = True


def _trickle(handler: Handler) -> None:
    handler.close_connection = True
    try:
        while not handler.server.is_closing.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()
    except OSError:
        return


def _seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+)(ms|s|m)", duration)
    assert match, duration
    return float(match[1]) * _SECONDS[match[2]]


def _filter(expression: str) -> Callable[[Mapping[str, Any]], bool]:
    """Understand what little of Consul's filter language is needed here."""
    if found := re.fullmatch(r'([\w.]+) == "(.*)"', expression):
        selector, value = found.groups()
        return lambda entry: str(_selected(selector, entry)) == value
    if found := re.fullmatch(r'"(.*)" in ([\w.]+)', expression):
        value, selector = found.groups()
        return lambda entry: value in _selected(selector, entry)
    raise ValueError("Failed to create boolean expression evaluator: no match found")


def _selected(selector: str, entry: Any) -> Any:
    for step in selector.split("."):
        entry = entry.get(step, "")
    return entry
