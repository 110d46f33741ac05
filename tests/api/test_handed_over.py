"""Answers that another process writes onto the connection of the daemon's client: whole and in
order, by whatever HTTP, and seen to be incomplete where they are.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from pathlib import Path

import pytest

from llb_core.api import reading_process, sending, streams
from llb_core.api.client import Client
from llb_core.api.server import serving
from llb_core.api.taking_turns import Pieces, write_in_turns
from llb_core.demo.network import wait_until
from llb_core.errors import ConfigurationError, LLBError
from llb_core.event_hub import EventHub, Listener
from tests.api.lines import Lines
from tests.api.test_control_socket import Daemon
from tests.waiting import until

END = b"0\r\n\r\n"
"""Of an answer in chunks."""
ROOT = Path(__file__).parents[2]


class Reading(Daemon):
    """A daemon with a long answer, whatever is asked of its tables."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = Lines()
        self.hub = EventHub()

    def tables_onto(
        self, connection: int, question: reading_process.Question
    ) -> AbstractAsyncContextManager[reading_process.Send]:
        return reading_process.handing_over("llb", self.answer, connection)

    def services(self) -> frozenset[str]:
        return frozenset()

    def listening(self, kinds: Collection[str]) -> AbstractContextManager[Listener]:
        return self.hub.listening(kinds)


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reading]:
    """A daemon that answers on `llb.sock`; what reads for it finds `Lines`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    daemon = Reading()
    async with serving(tmp_path / "llb.sock", daemon):
        yield daemon
    await until(lambda: not children(), limit=30)
    await asyncio.sleep(0.01)  # The loop hears that their pipes are closed, before it is.


def listed(folder: Path) -> bytes:
    return b"".join(Client(folder / "llb.sock").stream("/connections"))


async def test_a_long_answer_comes_whole_and_in_order(daemon: Reading, tmp_path: Path) -> None:
    assert await asyncio.to_thread(listed, tmp_path) == daemon.answer.whole()


async def test_the_connection_is_good_for_the_next_request(daemon: Reading, tmp_path: Path) -> None:
    again = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--fail", "--unix-socket", str(tmp_path / "llb.sock")),
        *("http://llb/connections", "http://llb/status", "-w", "%{num_connects}"),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await again.communicate()
    assert said == daemon.answer.whole() + b'1{"name": "llb"}0'


async def test_http_without_chunks_is_answered_too(daemon: Reading, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "llb.sock", limit=1 << 24)
    writer.write(b"GET /connections HTTP/1.0\r\n\r\n")
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    assert b"chunked" not in head
    assert body == daemon.answer.whole()


async def test_nothing_is_run_from_the_working_directory(
    daemon: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)

    assert await asyncio.to_thread(listed, tmp_path) == daemon.answer.whole()


async def test_an_error_before_the_first_line_is_told(daemon: Reading, tmp_path: Path) -> None:
    daemon.answer = Lines(is_unknown=True)
    with pytest.raises(ConfigurationError, match="llb: no such lines"):
        await asyncio.to_thread(listed, tmp_path)


@pytest.mark.parametrize("fatal", [6, 7], ids=["of-one-process", "of-the-other"])
async def test_an_answer_that_breaks_off_is_seen_to(
    daemon: Reading, tmp_path: Path, caplog: pytest.LogCaptureFixture, fatal: int
) -> None:
    daemon.answer = Lines(fatal=fatal)
    with pytest.raises(LLBError, match="broke off"):
        await asyncio.to_thread(listed, tmp_path)
    assert "/connections broke off: the tables can't be read" in caplog.text


async def test_whoever_asks_and_goes_away_leaves_nothing_running(
    daemon: Reading, tmp_path: Path
) -> None:
    daemon.answer = Lines(pieces=2_000)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "llb.sock")
    writer.write(b"GET /connections HTTP/1.1\r\nHost: llb\r\n\r\n")
    await reader.readline()
    writer.transport.abort()
    await asyncio.to_thread(wait_until, lambda: not children(), 30, "the process has ended")


async def test_clients_that_do_not_read_hold_nobody_else_up(
    daemon: Reading, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As many as there may be; the next one's answer takes the place of one of theirs."""
    unread = [await asking(tmp_path) for _ in range(sending.AT_ONCE)]
    async with asyncio.timeout(60):
        for reader, _ in unread:
            await reader.readline()

    assert await asyncio.to_thread(Client(tmp_path / "llb.sock").get, "/status") == {"name": "llb"}
    assert await asyncio.to_thread(listed, tmp_path) == daemon.answer.whole()

    answers = [await whole(reader) for reader, _ in unread]
    assert caplog.text.count("/connections broke off: it was not taken within") == 1
    assert sum(not each.endswith(END) for each in answers) == 1
    for _, writer in unread:
        writer.close()


async def test_whoever_goes_away_before_the_tables_are_read_holds_nobody_else_up(
    daemon: Reading, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither those whose tables are being read, nor those who wait for that."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    patient = daemon.answer
    daemon.answer = Lines(gate=str(gate))
    asked = [await asking(tmp_path) for _ in range(streams.READINGS_AT_ONCE + 1)]
    await until(lambda: len(children()) == streams.READINGS_AT_ONCE)
    for _, writer in asked:
        writer.transport.abort()
    daemon.answer = patient

    assert await asyncio.to_thread(listed, tmp_path) == daemon.answer.whole()

    await until(lambda: not children())
    assert not caplog.text


async def test_whoever_waits_for_an_event_and_goes_away_is_no_listener(
    daemon: Reading, tmp_path: Path
) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "llb.sock")
    writer.write(b"GET /events?kind=opened HTTP/1.1\r\nHost: llb\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    assert daemon.hub.is_heard

    writer.close()

    await until(lambda: not daemon.hub.is_heard, limit=30)


async def asking(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for connections."""
    reader, writer = await asyncio.open_unix_connection(folder / "llb.sock")
    writer.write(b"GET /connections HTTP/1.1\r\nHost: llb\r\nConnection: close\r\n\r\n")
    return reader, writer


async def whole(reader: asyncio.StreamReader) -> bytes:
    """Return what is left of an answer, also of one that breaks off."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := await reader.read(1 << 20):
            said += piece
    return said


def children() -> list[str]:
    """Return the children of this process that read tables."""
    found = []
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for child in path.read_text().split():
            with suppress(OSError):
                found.append(Path(f"/proc/{child}/cmdline").read_text())
    return [each for each in found if "table_reader" in each]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_pieces_are_written_in_order_by_any_number_of_processes(
    pair: tuple[socket.socket, socket.socket], processes: int
) -> None:
    pieces = Pieces(50, lambda number: b"%d." % number)

    write_in_turns(pieces, pair[0].sendall, processes)

    assert pair[1].recv(1 << 16) == b"".join(b"%d." % number for number in range(50))


def test_no_more_is_written_behind_a_piece_that_can_not_be_made(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    def make(number: int) -> bytes:
        return b"%d." % (number // (number != 17))

    with pytest.raises((ZeroDivisionError, ChildProcessError)):
        write_in_turns(Pieces(50, make), pair[0].sendall, 3)

    assert pair[1].recv(1 << 16) == b"".join(b"%d." % number for number in range(17))
