"""Ask one backend once whether it can serve: a TCP connection, or an HTTP GET.

A probe is a small machine of callbacks, without a task or a stream of its own, and of an HTTP
answer it reads the status line alone: hundreds of probes a second must cost next to nothing (a GET
by aiohttp's client takes five times the processor time). How often to ask, and what to make of the
results, is not decided here.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

from llb_core.health.poller import ENDED, FAILED, SAID
from llb_core.health.sockets import Sockets
from llb_core.health.state import CheckResult
from llb_core.model import Endpoint

StatusRange = tuple[int, int]
"""The lowest and the highest HTTP status that will do, both included."""


@dataclass(frozen=True, slots=True)
class HttpQuestion:
    """A GET: `host` is sent as the Host header, the target's address and port where it is empty."""

    path: str = "/"
    host: str = ""
    statuses: tuple[StatusRange, ...] = ((200, 399),)

    def request(self, target: Endpoint) -> bytes:
        """Return the bytes to send (RFC 9112)."""
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: {self.host or target}\r\n"
            "User-Agent: llb-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ).encode()

    def judge(self, status: int) -> CheckResult:
        """Say whether this status will do."""
        for low, high in self.statuses:
            if low <= status <= high:
                return GOOD
        wanted = ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in self.statuses)
        return CheckResult(False, f"status {status}, not {wanted}")


@dataclass(frozen=True, slots=True)
class Check:
    """What is asked of a target: `http`, or without it only that it takes a TCP connection.

    `timeout` is in seconds, for the whole of the check.
    """

    timeout: float
    http: HttpQuestion | None = None


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """A check that says nothing about the backend, since this host could not carry it out."""

    reason: str


Outcome = CheckResult | Inconclusive

GOOD = CheckResult(True)
"""The one good result that there is."""


class Target:
    """Where a check goes, and what is asked there: worked out once for all checks."""

    __slots__ = ("check", "family", "good_line", "request", "socket_address")

    def __init__(self, endpoint: Endpoint, check: Check) -> None:
        self.check = check
        self.family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
        self.socket_address = (str(endpoint.address), endpoint.port)
        self.request = check.http.request(endpoint) if check.http else b""
        self.good_line = b""
        """The status line that did last time, and does again; empty while there is none."""


_OURS = frozenset({
    errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM,
})  # fmt: skip
_REASONS = {errno.EINVAL: "no way there: its route is a blackhole"}
"""What the kernel means where its own words mislead; see ip-route(8)."""
_CONNECTING = (errno.EINPROGRESS, 0)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?:[ \r]|$)")
_LINE = 64
"""Bytes of a status line that is remembered, at most."""
_READ = 8192
"""Bytes that are read at once: most answers are shorter."""
_LONGEST = 65_536
"""Bytes of an answer that are read, for politeness: a server whose answer is cut off may log it."""


class Probe:
    """One check under way, begun at `began` by the event loop's clock. `on_end` is called once, on
    the event loop, unless it is cancelled.

    `is_decided` says that there is an outcome, `is_over` that nothing more is read, either.
    """

    __slots__ = (
        "_answer", "_has_ended", "_has_said", "_is_reading", "_is_whole", "_on_end", "_socket",
        "_sockets", "_target", "began", "is_decided", "is_over",
    )  # fmt: skip

    def __init__(
        self,
        sockets: Sockets,
        target: Target,
        began: float,
        on_end: Callable[[Probe, Outcome], None],
    ) -> None:
        self._sockets = sockets
        self._target = target
        self._on_end = on_end
        self._answer = b""
        self._is_whole = self._is_reading = self._has_said = self._has_ended = False
        self._socket: socket.SocketType | None = None
        self.began = began
        self.is_decided = self.is_over = False
        sockets.poller.deadlines(target.check.timeout).add(began, self)
        try:
            sock = self._socket = sockets.take(target.family)
        except OSError as error:
            # Not at once: whoever makes this probe does not hold it yet.
            sockets.poller.loop.call_soon(self._decide, _failure(error))
            return
        sockets.poller.wait(sock.fileno(), self._on_event)
        sockets.poller.ask(sock.connect_ex, target.socket_address, self._on_connecting)

    def cancel(self) -> None:
        """Give up, without a result."""
        self.is_decided = True
        self._close()

    def _on_connecting(self, code: int | OSError) -> None:
        if code not in _CONNECTING:
            self._decide(_failure(code))

    def _on_event(self, what: int) -> None:
        sock, poller = self._socket, self._sockets.poller
        if sock is None:
            return
        if what & FAILED:
            self._is_whole = False
        if self._is_reading:
            self._has_ended = bool(what & ENDED)
            if self._has_ended and self.is_decided:
                self._close()  # What it had to say has come, whether it was read or not.
            else:
                poller.ask(sock.recv, _READ, self._on_read)
        elif what & FAILED:
            self._decide(_failure(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
        else:
            self._is_whole = True
            self._has_said, self._has_ended = bool(what & (SAID | ENDED)), bool(what & ENDED)
            if self._target.request:
                # The buffer of a new connection takes it whole.
                poller.ask(sock.send, self._target.request, self._on_sent)
            else:
                self._decide(GOOD)

    def _on_sent(self, sent: int | OSError) -> None:
        if isinstance(sent, OSError):
            self._decide(_failure(sent))
            return
        self._is_reading = True
        if self._has_said and self._socket is not None:  # Before it was asked: not told again.
            self._sockets.poller.ask(self._socket.recv, _READ, self._on_read)

    def _on_read(self, data: bytes | OSError) -> None:
        if isinstance(data, OSError):
            if not isinstance(data, BlockingIOError):
                self._decide(_failure(data))
                self._close()
            return
        self._answer += data
        is_more = len(data) == _READ
        is_last = not data or (self._has_ended and not is_more)
        if not self.is_decided:
            self._read_status(is_last=is_last)
        if is_last or len(self._answer) >= _LONGEST:
            self._close()
        elif is_more and self._socket is not None:
            self._sockets.poller.ask(self._socket.recv, _READ, self._on_read)

    def _read_status(self, *, is_last: bool) -> None:
        target, answer = self._target, self._answer
        if target.good_line and answer.startswith(target.good_line):
            self._decide(GOOD)
            return
        assert target.check.http is not None
        while (end := answer.find(b"\n")) >= 0:
            if (match := _STATUS_LINE.match(answer[:end])) is None:
                self._decide(CheckResult(False, f"not an HTTP answer: {_excerpt(answer[:end])}"))
                return
            if not match[1].startswith(b"1"):
                result = target.check.http.judge(int(match[1]))
                if result.ok and end < _LINE:
                    target.good_line = answer[: end + 1]
                self._decide(result)
                return
            # An interim answer (RFC 9110, 15.2): the final one follows after its empty line.
            _, _, answer = answer.partition(b"\r\n\r\n")
        if is_last or len(self._answer) >= _LONGEST:
            said = f", after {_excerpt(self._answer)}" if self._answer else ""
            self._decide(CheckResult(False, f"closed without an HTTP answer{said}"))

    def expire(self, late: float) -> None:
        """Take it for failed: it had its time, and `late` seconds more."""
        timeout = self._target.check.timeout
        if late > timeout / 2:
            # It is this process that stood still (stopped, starved), perhaps not the backend.
            self._decide(Inconclusive("this host was too busy to run its health checks in time"))
        else:
            self._decide(CheckResult(False, f"no answer within {timeout * 1000:g} ms"))
        self._close()

    def _decide(self, outcome: Outcome) -> None:
        if not self.is_decided:
            self.is_decided = True
            self._on_end(self, outcome)
        if not self._is_reading:
            self._close()  # Otherwise the rest of the answer is read first.

    def _close(self) -> None:
        self.is_over = True
        if self._socket is not None:
            sock, self._socket = self._socket, None
            if self._is_whole:
                self._sockets.give_back(sock, self._target.family)
            else:
                self._sockets.drop(sock)


def _failure(error: OSError | int) -> Outcome:
    code = error if isinstance(error, int) else error.errno or 0
    reason = _REASONS.get(code) or os.strerror(code).lower()
    return Inconclusive(reason) if code in _OURS else CheckResult(False, reason)


def _excerpt(answer: bytes) -> str:
    return repr(answer[:40].decode("latin-1").strip())
