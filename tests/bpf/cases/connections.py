"""Packets of connections and flows in each of their states."""

from __future__ import annotations

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.case import IN, NEW, OUT, STAMPS, Case, sized
from tests.bpf.harness import talk
from tests.bpf.harness.packets import (
    OPTIONS,
    at_backend,
    at_client,
    from_backend,
    from_client,
    question,
    question_at_backend,
    reply,
    reply_at_client,
)
from tests.bpf.harness.world import PRIVATE


def opening() -> list[Case]:
    """The first packets of a connection."""
    return [
        Case("syn", talk.nothing, from_client("S"), NEW, at_backend("S")),
        Case("syn with options", talk.nothing, from_client("S", tcp_options=STAMPS), NEW,
             at_backend("S", tcp_options=STAMPS)),
        Case("syn with data", talk.nothing, from_client("S", b"fast"), NEW,
             at_backend("S", b"fast")),
        Case("syn with ecn", talk.nothing, from_client("SEC"), NEW, at_backend("SEC")),
        Case("syn again", talk.opening, from_client("S"), IN, at_backend("S")),
        Case("syn on established", talk.established, from_client("S"), IN, at_backend("S")),
        Case("syn with ttl 2", talk.nothing, from_client("S", ttl=2), NEW, at_backend("S", ttl=1)),
        Case("syn with ttl 255", talk.nothing, from_client("S", ttl=255), NEW,
             at_backend("S", ttl=254)),
        Case("syn with ip options", talk.nothing, from_client("S", options=OPTIONS), NEW,
             at_backend("S", options=OPTIONS)),
        Case("syn and ack opens nothing", talk.nothing, from_client("SA"),
             Verdict.PASS_NO_CONNECTION),
        Case("syn and fin opens nothing", talk.nothing, from_client("SF"),
             Verdict.PASS_NO_CONNECTION),
        Case("syn and rst opens nothing", talk.nothing, from_client("SR"),
             Verdict.PASS_NO_CONNECTION),
        Case("ack of no connection", talk.nothing, from_client("A"), Verdict.PASS_NO_CONNECTION),
        Case("fin of no connection", talk.nothing, from_client("FA"), Verdict.PASS_NO_CONNECTION),
        Case("rst of no connection", talk.nothing, from_client("R"), Verdict.PASS_NO_CONNECTION),
        Case("segment without flags", talk.nothing, from_client(""), Verdict.PASS_NO_CONNECTION),
        Case("all flags at once", talk.nothing, from_client("FSRPAUEC"),
             Verdict.PASS_NO_CONNECTION),
    ]  # fmt: skip


def established() -> list[Case]:
    """Segments of a connection, to its end and beyond."""
    return [
        Case("syn-ack", talk.opening, from_backend("SA"), OUT, at_client("SA"), PRIVATE),
        Case("ack of the handshake", talk.answered, from_client("A"), IN, at_backend("A")),
        Case("request", talk.established, from_client("PA", b"GET /"), IN,
             at_backend("PA", b"GET /")),
        Case("response", talk.established, from_backend("PA", b"200 OK"), OUT,
             at_client("PA", b"200 OK"), PRIVATE),
        Case("request of one byte", talk.established, from_client("PA", b"x"), IN,
             at_backend("PA", b"x")),
        Case("response of odd length", talk.established, from_backend("A", sized(1459, b"y")), OUT,
             at_client("A", sized(1459, b"y")), PRIVATE),
        Case("full segment", talk.established, from_client("A", sized(1460)), IN,
             at_backend("A", sized(1460))),
        Case("bytes of ones", talk.established, from_client("A", b"\xff" * 101), IN,
             at_backend("A", b"\xff" * 101)),
        Case("request with ip options", talk.established, from_client("A", b"x", options=OPTIONS),
             IN, at_backend("A", b"x", options=OPTIONS)),
        Case("response with ip options", talk.established, from_backend("A", b"x", options=OPTIONS),
             OUT, at_client("A", b"x", options=OPTIONS), PRIVATE),
        Case("request with ttl 2", talk.established, from_client("A", ttl=2), IN,
             at_backend("A", ttl=1)),
        Case("response with ttl 2", talk.established, from_backend("A", ttl=2), OUT,
             at_client("A", ttl=1), PRIVATE),
        Case("fin of the client", talk.established, from_client("FA"), IN, at_backend("FA")),
        Case("fin of the backend", talk.established, from_backend("FA"), OUT, at_client("FA"),
             PRIVATE),
        Case("data after the client's fin", talk.client_half_closed, from_backend("A", b"rest"),
             OUT, at_client("A", b"rest"), PRIVATE),
        Case("data after the backend's fin", talk.backend_half_closed, from_client("A", b"rest"),
             IN, at_backend("A", b"rest")),
        Case("last ack", talk.closing, from_client("A"), IN, at_backend("A")),
        Case("fin once more after all is closed", talk.closed_by_client, from_backend("FA"), OUT,
             at_client("FA"), PRIVATE),
        Case("ack once more after all is closed", talk.closed_by_backend, from_client("A"), IN,
             at_backend("A")),
        Case("rst of the client", talk.established, from_client("R"), IN, at_backend("R")),
        Case("rst of the backend", talk.established, from_backend("RA"), OUT, at_client("RA"),
             PRIVATE),
        Case("refusal", talk.opening, from_backend("RA"), OUT, at_client("RA"), PRIVATE),
        Case("syn after a close by the client", talk.closed_by_client, from_client("S"), NEW,
             at_backend("S")),
        Case("syn after a close by the backend", talk.closed_by_backend, from_client("S"), NEW,
             at_backend("S")),
        Case("syn after a reset", talk.reset_by_backend, from_client("S"), NEW, at_backend("S")),
        Case("syn while closing", talk.closing, from_client("S"), NEW, at_backend("S")),
        Case("ack after a close opens nothing", talk.closed_by_client, from_client("A"), IN,
             at_backend("A")),
    ]  # fmt: skip


def datagrams() -> list[Case]:
    """UDP."""
    return [
        Case("datagram", talk.nothing, question(), NEW, question_at_backend()),
        Case("datagram again", talk.asked, question(b"more"), IN, question_at_backend(b"more")),
        Case("answer", talk.asked, reply(), OUT, reply_at_client(), PRIVATE),
        Case("answer again", talk.replied, reply(b"more"), OUT, reply_at_client(b"more"), PRIVATE),
        Case("empty datagram", talk.nothing, question(b""), NEW, question_at_backend(b"")),
        Case("datagram of odd length", talk.replied, question(b"odd"), IN,
             question_at_backend(b"odd")),
        Case("answer of odd length", talk.replied, reply(sized(1471, b"z")), OUT,
             reply_at_client(sized(1471, b"z")), PRIVATE),
        Case("datagram with ip options", talk.nothing, question(options=OPTIONS), NEW,
             question_at_backend(options=OPTIONS)),
        Case("datagram with ttl 2", talk.nothing, question(ttl=2), NEW, question_at_backend(ttl=1)),
    ]  # fmt: skip
