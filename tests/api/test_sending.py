"""Places for answers on their way: nobody waits for one."""

from __future__ import annotations

import asyncio

import pytest

from llb_core.api.sending import Places
from llb_core.errors import LLBError


async def test_the_answer_that_began_first_makes_way() -> None:
    places = Places(2)
    lost: list[str] = []

    async def send(name: str) -> None:
        try:
            async with places.place():
                await asyncio.Event().wait()
        except LLBError:
            lost.append(name)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(send(name)) for name in "abc"]
        await tasks[0]
        assert lost == ["a"]
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        async with places.place():
            assert not tasks[2].done(), "a place that was given back is free"
        tasks[2].cancel()
    assert lost == ["a"]


async def test_a_place_whose_time_is_over_just_then_is_taken_too() -> None:
    places = Places(1, seconds=0)

    async def send() -> None:
        with pytest.raises(LLBError, match="it was not taken within"):
            async with places.place():
                await asyncio.Event().wait()

    async def come_meanwhile() -> None:
        await asyncio.sleep(0)
        async with places.place():
            pass

    await asyncio.gather(send(), come_meanwhile())
