"""Have a process of its own read the tables for the daemon: it takes up to two seconds of a CPU and
100 MiB, none of which is to be the daemon's. `python -m llb_core.api.reading_process`, with what is
wanted on standard input; what it finds comes out by standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from llb_core.config import LoadBalancerConfig
from llb_core.errors import ConfigurationError, LLBError

_PIECE = 1 << 18


class Question(Protocol):
    """What can be asked of the tables: a value that can be pickled."""

    def check(self) -> None:
        """Raise ConfigurationError where something in it can't be meant."""

    def answer(self, settings: LoadBalancerConfig, source: str) -> Iterator[bytes]:
        """Yield what the tables say; `source` is who says so."""


async def ask(settings: LoadBalancerConfig, question: Question) -> AsyncIterator[bytes]:
    """Yield the answer, from a process that ends with this.

    Raises what the process would: ConfigurationError and other LLBErrors.
    """
    question.check()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(pickle.dumps((settings, question)))
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


def main() -> None:
    """Answer the daemon: the settings and a question on standard input, pickled."""
    settings, question = pickle.load(sys.stdin.buffer)
    os.nice(5)  # The health checks come first.
    try:
        for chunk in question.answer(settings, "daemon"):
            sys.stdout.buffer.write(chunk)
    except LLBError as error:
        is_wrong_call = isinstance(error, ConfigurationError)
        sys.stderr.write(json.dumps({"error": str(error), "is_wrong_call": is_wrong_call}))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
