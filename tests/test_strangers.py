"""Somebody else's code, waited for with a limit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from llb_core.errors import ConfigurationError
from llb_core.strangers import aside, within


def test_returns_and_raises_what_the_work_does() -> None:
    assert within(30, lambda: 7, "counting") == 7
    with pytest.raises(KeyboardInterrupt):
        within(30, _interrupt, "interrupting")


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_one_within_another_has_the_outer_ones_limit() -> None:
    gate = threading.Event()
    with pytest.raises(ConfigurationError, match=r"^the inner takes more than 2 s"):
        within(2, lambda: within(1000, gate.wait, "the inner"), "the outer")
    gate.set()


async def test_work_aside_is_awaited() -> None:
    assert await aside(lambda: 7) == 7
    with pytest.raises(KeyError):
        await aside(lambda: {}["nothing"])


def test_work_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    text = (
        "import asyncio, threading\n"
        "from llb_core.strangers import aside\n"
        "async def main():\n"
        "    task = asyncio.create_task(aside(threading.Event().wait))\n"
        "    await asyncio.sleep(0.05)\n"
        "    task.cancel()\n"
        "    await asyncio.gather(task, return_exceptions=True)\n"
        "asyncio.run(main())\n"
        "print('ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("ended\n", 0)


async def test_an_awaiter_that_left_harms_nobody() -> None:
    gate = threading.Event()
    task = asyncio.create_task(aside(gate.wait))
    await asyncio.sleep(0)
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_is_printed_meanwhile_goes_to_standard_error() -> None:
    text = (
        "import os, threading\n"
        "from llb_core.strangers import stdout_kept\n"
        "with stdout_kept():\n"
        "    print('by Python', flush=True)\n"
        "    os.write(1, b'past Python\\n')\n"
        "    thread = threading.Thread(target=print, args=('by a thread',))\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "print('ours')\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("ours\n", 0)
    assert sorted(done.stderr.splitlines()) == ["by Python", "by a thread", "past Python"]
