"""An HTTP server that behaves as a Consul agent does, as far as the provider can tell: over real
sockets, with indexes and blocking queries, ACLs and TLS, and with faults on demand.

Its writes are those of the agent's own API, so that tests drive it and a real agent by the same
calls.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from llb_providers.consul.tests.catalog import NODE, Catalog, Request

Fault = Callable[["Handler"], None]
"""What the agent does instead of answering a query of health."""


class FakeConsul(Catalog):
    """A Consul agent on a port of its own of 127.0.0.1; `start` and `stop` it at will."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.tls = tls
        self.port = 0
        self.requests: list[Request] = []
        self.connections = 0
        self.fault: Fault | None = None
        self.extra_headers: dict[str, str] = {}
        self.tokens: dict[str, set[str]] | None = None
        """The services that each token may read; None: there are no ACLs."""
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

    def health_requests(self) -> list[Request]:
        with self.lock:
            return [each for each in self.requests if each.path.startswith("/v1/health/")]


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
