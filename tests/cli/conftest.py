"""Call `llb` as a shell does, in this process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llb_core.api.server import serving
from tests.calling import Called, call

Llb = Callable[..., Called]


@contextmanager
def served(*answering: tuple[Path, Any]) -> Iterator[None]:
    """Have each answer on its socket, as daemons beside this process do."""
    ready, loop, end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for path, daemon in answering:
                await stack.enter_async_context(serving(path, daemon))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


@pytest.fixture
def llb() -> Iterator[Llb]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield call
    # `llb run` sets up logs for its own process, on a standard error that ends with the test.
    root.handlers[:] = handlers
    root.setLevel(level)
