"""An HTTP server in front of moto's: passes calls on, keeps a record of them, and does to the
answers what AWS and networks do: refuse, throttle, garble, hang, break off."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/")


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it arrived: what was asked for, where, and with which key."""

    action: str
    parameters: Mapping[str, str]
    region: str
    key: str
    token: str
    agent: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `is_cut` sends half of the body that was announced, and no more."""

    status: int
    body: bytes
    is_cut: bool = False


EMPTY = (
    b"<DescribeTargetHealthResponse><DescribeTargetHealthResult>%s"
    b"</DescribeTargetHealthResult></DescribeTargetHealthResponse>"
)
"""An answer of DescribeTargetHealth, without what is in it."""
Moto = Callable[[bytes], Reply]
"""Asks moto, with that body."""
Fault = Callable[[Call, Moto], Reply | None]
"""Answers a call, by itself or by changing what moto says; None hangs till the server closes."""


class Front:
    """The server. `faults` are by action, each until the test takes it away again; `every_fault`
    is that of the other actions."""

    def __init__(self, behind: str) -> None:
        self.calls: list[Call] = []
        self.faults: dict[str, Fault] = {}
        self.every_fault: Fault = well
        self.closing = threading.Event()
        self._behind = urlsplit(behind).netloc
        handler = type("Handler", (_Handler,), {"front": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop, and let go of calls that hang."""
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def count(self, action: str) -> int:
        """Return how often an action has been called."""
        return sum(call.action == action for call in self.calls)

    def named(self, action: str) -> list[Call]:
        """Return the calls of an action."""
        return [call for call in self.calls if call.action == action]

    @contextmanager
    def fault(self, action: str, fault: Fault) -> Iterator[None]:
        """Have a fault for a while."""
        self.faults[action] = fault
        try:
            yield
        finally:
            del self.faults[action]

    def answer(self, call: Call, headers: Mapping[str, str]) -> Reply | None:
        """Answer one call."""
        self.calls.append(call)
        fault = self.faults.get(call.action, self.every_fault)
        return fault(call, lambda body: self._ask_moto(body, headers))

    def _ask_moto(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        connection = http.client.HTTPConnection(self._behind, timeout=30)
        try:
            length = {"Content-Length": str(len(body))}
            connection.request("POST", "/", body, {**headers, **length})
            response = connection.getresponse()
            return Reply(response.status, response.read())
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    front: Front
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parameters = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        signed = _CREDENTIAL.search(self.headers.get("Authorization", ""))
        call = Call(
            action=parameters.get("Action", ""),
            parameters=parameters,
            region=signed[2] if signed else "",
            key=signed[1] if signed else "",
            token=self.headers.get("X-Amz-Security-Token", ""),
            agent=self.headers.get("User-Agent", ""),
            body=body,
        )
        reply = self.front.answer(call, dict(self.headers))
        if reply is None:
            self.front.closing.wait()
            self.close_connection = True
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) // 2] if reply.is_cut else reply.body)
        self.close_connection |= reply.is_cut

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Print nothing."""


def well(call: Call, moto: Moto) -> Reply:
    """Say what moto says."""
    return moto(call.body)


def error(code: str, message: str = "no reason given", status: int = 400) -> Fault:
    """Answer with an error, in the form of EC2 for its actions and of the others for theirs."""

    def fault(call: Call, _: Moto) -> Reply:
        inner = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        if call.action == "DescribeInstances":
            text = f"<Response><Errors>{inner}</Errors><RequestID>1</RequestID></Response>"
        else:
            text = f"<ErrorResponse>{inner}<RequestId>1</RequestId></ErrorResponse>"
        return Reply(status, text.encode())

    return fault


def times(count: int, fault: Fault) -> Fault:
    """Have a fault so often, and be well again."""
    left = iter(range(count))

    def counted(call: Call, moto: Moto) -> Reply | None:
        return moto(call.body) if next(left, None) is None else fault(call, moto)

    return counted


def body(content: bytes, status: int = 200) -> Fault:
    """Answer with something."""
    return lambda call, moto: Reply(status, content)


def rewrite(pattern: str, replacement: str, count: int = 0) -> Fault:
    """Change what moto says, which must hold what is to be changed."""

    def fault(call: Call, moto: Moto) -> Reply:
        text, found = re.subn(pattern, replacement, moto(call.body).body.decode(), count=count)
        assert found, f"{pattern} is not in the answer: {text}"
        return Reply(200, text.encode())

    return fault


def hang(call: Call, moto: Moto) -> None:
    """Never answer."""


def cut(call: Call, moto: Moto) -> Reply:
    """Break off in the middle."""
    return Reply(200, moto(call.body).body, is_cut=True)


def small_pages(call: Call, moto: Moto) -> Reply:
    """Give pages of five reservations, however many are asked for: AWS may give less."""
    assert call.parameters["MaxResults"] == "1000"
    return moto(call.body.replace(b"MaxResults=1000", b"MaxResults=5"))
