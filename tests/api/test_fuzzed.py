"""Requests made up from the description: none fails, and each answer is as described.

schemathesis speaks TCP, the control socket is a Unix socket: a bridge lies between.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from llb_core.api.openapi import describe
from llb_core.api.server import serving
from tests.api.answers import Answering

schema = schemathesis.openapi.from_dict(describe())


async def bridge(path: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one TCP connection's bytes to the socket and back."""
    there, back = await asyncio.open_unix_connection(str(path))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.close()

    await asyncio.gather(pump(reader, back), pump(there, writer))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the bridge to a served control socket listens."""
    path = tmp_path_factory.mktemp("api") / "llb.sock"
    found: list[int] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(path, Answering()):
            server = await asyncio.start_server(
                lambda reader, writer: bridge(path, reader, writer), "127.0.0.1", 0
            )
            found.append(server.sockets[0].getsockname()[1])
            ready.set()
            await stop.wait()
            server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{found[0]}"
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_fails_and_every_answer_is_as_described(
    case: schemathesis.Case, url: str
) -> None:
    # That a text is the address of a backend is more than a pattern can say.
    case.call_and_validate(base_url=url, excluded_checks=[positive_data_acceptance])
