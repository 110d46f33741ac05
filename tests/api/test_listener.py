"""The read-only listener, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from llb_core.api.listener import ReadOnlyListener
from llb_core.api.patience import PAUSE, Patience
from llb_core.api.server import serving
from llb_core.errors import HostError
from llb_core.model import Endpoint
from llb_core.testing.waiting import until
from tests.api.test_control_socket import Daemon

LOOPBACKS = ["127.0.0.1", "::1"]


def free(address: str) -> Endpoint:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as trial:
        trial.bind((address, 0))
        return Endpoint(ipaddress.ip_address(address), trial.getsockname()[1])


class Followed:
    """A listener that follows where it is wanted."""

    def __init__(self) -> None:
        self.where: Endpoint | None = None
        self.complaint = ""
        self.listener = ReadOnlyListener(Daemon(), lambda: self.where, self.complain)

    def complain(self, text: str) -> None:
        self.complaint = text

    async def reaches(self, where: Endpoint) -> None:
        self.where = where
        await asyncio.to_thread(until, lambda: is_open(where), what="it listens")


def is_open(where: Endpoint) -> bool:
    try:
        socket.create_connection((str(where.address), where.port), 1).close()
    except ConnectionError:  # Reset where it is closed just then.
        return False
    return True


def fetch(where: Endpoint, path: str, method: str = "GET", **headers: str) -> HTTPResponse:
    request = urllib.request.Request(f"http://{where}{path}", headers=headers, method=method)
    response: HTTPResponse = urllib.request.urlopen(request, timeout=5)
    return response


@pytest.fixture
async def listener(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Followed]:
    monkeypatch.setattr("llb_core.api.listener.PAUSE", 0.01)
    followed = Followed()
    task = asyncio.create_task(followed.listener.run())
    yield followed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("address", LOOPBACKS)
async def test_answers_what_is_only_read(listener: Followed, address: str) -> None:
    where = free(address)
    await listener.reaches(where)
    response = await asyncio.to_thread(fetch, where, "/status")
    assert response.read() == b'{"name": "llb"}'
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    metrics = await asyncio.to_thread(fetch, where, "/metrics")
    assert metrics.read().startswith(b"llb_connections 3\n")
    assert metrics.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_sends_many_metrics_compressed_to_whom_that_suits(listener: Followed) -> None:
    where = free("127.0.0.1")
    await listener.reaches(where)
    response = await asyncio.to_thread(fetch, where, "/metrics", **{"Accept-Encoding": "gzip"})
    plain = await asyncio.to_thread(fetch, where, "/metrics")
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(response.read()) == plain.read()


@pytest.mark.parametrize("path", ["/drain", "/undrain"])
async def test_takes_no_order(listener: Followed, path: str) -> None:
    where = free("127.0.0.1")
    await listener.reaches(where)
    for method, status in (("POST", 404), ("GET", 404), ("PUT", 404), ("DELETE", 404)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            await asyncio.to_thread(fetch, where, path, method)
        assert refused.value.code == status


async def test_follows_a_reload(listener: Followed) -> None:
    first, second = free("127.0.0.1"), free("::1")
    await listener.reaches(first)
    await listener.reaches(second)
    assert not await asyncio.to_thread(is_open, first)
    listener.where = None
    await asyncio.to_thread(until, lambda: not is_open(second), what="it is closed")


async def test_an_address_in_use_is_told_once_and_taken_when_it_is_free(
    listener: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = Endpoint(ipaddress.ip_address("127.0.0.1"), other.getsockname()[1])
        listener.where = where
        with caplog.at_level(logging.INFO):
            await asyncio.to_thread(until, lambda: caplog.records, what="it is told")
            await asyncio.sleep(0.1)  # A few tries more.
    (record,) = (each for each in caplog.records if each.levelno >= logging.ERROR)
    complaint = f"api.listen: {where} can't be listened on: Address already in use"
    assert record.getMessage() == f"{complaint}: there is no page and no metrics"
    assert listener.complaint == complaint
    await listener.reaches(where)
    await asyncio.to_thread(until, lambda: not listener.complaint, what="it is well")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"], ids=["same", "one that meets it"])
async def test_an_address_of_another_is_refused_and_the_old_one_goes_on(
    listener: Followed, address: str
) -> None:
    where = free("127.0.0.1")
    await listener.reaches(where)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Endpoint(ipaddress.ip_address(address), other.getsockname()[1])
        with (
            pytest.raises(HostError, match=f"api.listen: {taken} can't be listened on: Address al"),
            listener.listener.opened(taken),
        ):
            pytest.fail("it is opened")
    assert (await asyncio.to_thread(fetch, where, "/status")).status == 200


async def test_what_is_opened_is_closed_unless_it_is_wanted(listener: Followed) -> None:
    first, second = free("127.0.0.1"), free("127.0.0.1")
    await listener.reaches(first)
    with listener.listener.opened(second):
        assert await asyncio.to_thread(is_open, second)
    assert not await asyncio.to_thread(is_open, second)
    with listener.listener.opened(second):
        listener.where = second
    assert (await asyncio.to_thread(fetch, second, "/status")).status == 200
    await asyncio.to_thread(until, lambda: not is_open(first), what="the old one is closed")


async def test_there_and_back_at_once_leaves_nothing_open(listener: Followed) -> None:
    first, second = free("127.0.0.1"), free("127.0.0.1")
    await listener.reaches(first)
    with listener.listener.opened(second):
        listener.where = second
    with listener.listener.opened(first):
        listener.where = first
    await asyncio.to_thread(until, lambda: not is_open(second), what="it is closed")
    assert (await asyncio.to_thread(fetch, first, "/status")).status == 200


async def test_goes_from_one_address_to_all_on_the_same_port_and_back(listener: Followed) -> None:
    one = free("127.0.0.1")
    everywhere = Endpoint(ipaddress.ip_address("0.0.0.0"), one.port)
    elsewhere = Endpoint(ipaddress.ip_address("127.0.0.2"), one.port)
    await listener.reaches(one)
    with listener.listener.opened(everywhere):
        listener.where = everywhere
    assert (await asyncio.to_thread(fetch, elsewhere, "/status")).status == 200
    with listener.listener.opened(one):
        listener.where = one
    await asyncio.to_thread(until, lambda: not is_open(elsewhere), what="only there")
    assert (await asyncio.to_thread(fetch, one, "/status")).status == 200
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", one.port))


async def test_the_control_socket_has_metrics_too(tmp_path: Path) -> None:
    path = tmp_path / "llb.sock"
    async with serving(path, Daemon()):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"llb_connections 3\n" in await reader.read()
        writer.close()


@pytest.mark.parametrize("address", LOOPBACKS)
@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "],
    ids=["nothing", "half a line", "half a head"],
)
async def test_whoever_is_too_slow_to_ask_is_cut_off(
    listener: Followed, monkeypatch: pytest.MonkeyPatch, address: str, said: bytes
) -> None:
    monkeypatch.setattr("llb_core.api.listener.Patience", lambda: Patience(seconds=0.2))
    where = free(address)
    await listener.reaches(where)
    reader, writer = await asyncio.open_connection(address, where.port)
    writer.write(said)
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
    assert (await asyncio.to_thread(fetch, where, "/status")).status == 200


async def test_of_too_many_those_go_that_have_waited_for_longest(
    listener: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llb_core.api.listener.Patience", lambda: Patience(seconds=600, most=3))
    where = free("127.0.0.1")
    await listener.reaches(where)
    first = [await asyncio.open_connection("127.0.0.1", where.port) for _ in range(3)]
    await asyncio.sleep(2 * PAUSE)  # They are known by now to have waited for longer.
    others = [await asyncio.open_connection("127.0.0.1", where.port) for _ in range(3)]
    for reader, _ in first:
        assert await asyncio.wait_for(reader.read(), 30) == b""
    reader, writer = others[0]
    writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 200")
    for _, each in first + others:
        each.close()


async def test_a_connection_that_is_kept_serves_one_request_after_the_other(
    listener: Followed,
) -> None:
    where = free("127.0.0.1")
    await listener.reaches(where)
    reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
    for _ in range(3):
        await asyncio.sleep(PAUSE)  # A look at it meanwhile.
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await asyncio.wait_for(reader.readexactly(length), 30)
    writer.close()
