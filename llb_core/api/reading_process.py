"""Have a process of its own read the tables for the daemon: it takes up to two seconds of a CPU and
100 MiB, none of which is to be the daemon's. What that process does is `table_reader`.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from llb_core.errors import ConfigurationError, LLBError

_PIECE = 1 << 18


class Question(Protocol):
    """What can be asked of the tables: a value that can be pickled."""

    def check(self) -> None:
        """Raise ConfigurationError where something in it can't be meant."""

    def answer(self, balancer: str, source: str) -> Iterator[bytes]:
        """Yield what the tables of a balancer say; `source` is who says so."""


async def ask(balancer: str, question: Question) -> AsyncIterator[bytes]:
    """Yield the answer, from a process that ends with this.

    Raises what the process would: ConfigurationError and other LLBErrors.
    """
    question.check()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llb_core.api.table_reader"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_PIECE,
        # Nothing in it is for numpy's threads, and to start them takes time.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(pickle.dumps((balancer, question)))
        process.stdin.close()
        while chunk := await process.stdout.read(_PIECE):
            yield chunk
        said = await process.stderr.read()
        if await process.wait():
            raise _error(said.decode(errors="replace"))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _error(said: str) -> LLBError:
    try:
        answer = json.loads(said)
    except ValueError:
        return LLBError(f"the tables can't be read: {said.strip()[-300:]}")
    kind = ConfigurationError if answer["is_wrong_call"] else LLBError
    return kind(answer["error"])
