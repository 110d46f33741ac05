"""What a fake agent does instead of answering: errors, silence, and all that is no answer."""

from __future__ import annotations

from collections.abc import Mapping

from llb_providers.consul.tests.fake_consul import Fault, Handler


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
