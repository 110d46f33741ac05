"""Have a process of its own read the tables for the daemon: it takes up to two seconds of a CPU and
200 MiB, none of which is to be the daemon's. What that process does is `table_reader`.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from llb_core.api.table_reader import CHUNKED, READY
from llb_core.api.taking_turns import Pieces
from llb_core.errors import ConfigurationError, LLBError

Send = Callable[[bool], Awaitable[None]]


class Question(Protocol):
    """What can be asked of the tables: a value that can be pickled."""

    def check(self) -> None:
        """Raise ConfigurationError where something in it can't be meant."""

    def answer(self, balancer: str, source: str) -> Pieces:
        """Return what the tables of a balancer say; `source` is who says so."""


async def ask(balancer: str, question: Question) -> bytes:
    """Return the answer.

    Raises what the process would: ConfigurationError and other LLBErrors.
    """
    async with _reading(balancer, question, None) as process:
        assert process.stdout is not None
        answer = await process.stdout.read()
        await _ended_well(process)
    return answer


@asynccontextmanager
async def handing_over(balancer: str, question: Question, connection: int) -> AsyncIterator[Send]:
    """Have the answer written onto a connection by the process that reads: once it has found what
    is asked for, yields what to call for that, with whether it goes in HTTP's chunks. Until that
    returns, nobody else may write there; what ends the chunks isn't among them.

    Raises as `ask`; LLBError from the call, too, where not all was written.
    """
    async with _reading(balancer, question, connection) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        if await stdout.readline() != READY:
            await _ended_well(process)
            raise LLBError("the tables can't be read: the process that reads them says nothing")

        async def send(is_chunked: bool) -> None:
            stdin.write(CHUNKED if is_chunked else b"\n")
            await _ended_well(process)

        yield send


@asynccontextmanager
async def _reading(
    balancer: str, question: Question, connection: int | None
) -> AsyncIterator[Process]:
    """Start a process that reads, which ends with this."""
    question.check()
    process = await asyncio.create_subprocess_exec(
        # Nothing is imported from the directory that the daemon happens to be in.
        *(sys.executable, "-P", "-m", "llb_core.api.table_reader"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=() if connection is None else (connection,),
        # Nothing in it is for numpy's threads, and to start them takes time. What one thread gives
        # back is to be there for the next: else glibc keeps 15 MiB more.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert process.stdin is not None
    try:
        process.stdin.write(pickle.dumps((balancer, question, connection)))
        yield process
    finally:
        process.stdin.close()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _ended_well(process: Process) -> None:
    """Wait for the end of a process that reads; raise LLBError where it failed."""
    assert process.stderr is not None
    said = await process.stderr.read()
    if await process.wait():
        raise _error(said.decode(errors="replace"))


def _error(said: str) -> LLBError:
    try:
        answer = json.loads(said)
    except ValueError:
        return LLBError(f"the tables can't be read: {said.strip()[-300:]}")
    kind = ConfigurationError if answer["is_wrong_call"] else LLBError
    return kind(answer["error"])
