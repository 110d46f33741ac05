"""Events of connections for the page: heard while it asks for them, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llb_core import page_ear
from llb_core.event_hub import EventHub
from llb_core.page_ear import KEPT, PageEar
from tests.waiting import until

BOTH_FAMILIES = pytest.mark.parametrize("client", ["192.0.2.1:4000", "[2001:db8::1]:4000"])


def told(kind: str, client: str, **more: Any) -> dict[str, Any]:
    vip = "[2001:db8::9]:80" if "[" in client else "203.0.113.10:80"
    backend = "[fd00::2]:8080" if "[" in client else "10.0.0.2:8080"
    return {
        "time": 5.0, "kind": kind, "service": "web", "protocol": "tcp", "source": client,
        "destination": vip, "backend": backend, **more,
    }  # fmt: skip


async def texts(ear: PageEar, count: int) -> list[str]:
    await until(lambda: len(ear.newest()) >= count, limit=30)
    return [each.text for each in ear.newest()]


@BOTH_FAMILIES
async def test_says_what_happened_the_newest_first(client: str) -> None:
    hub = EventHub()
    ear = PageEar(hub)
    assert ear.newest() == []
    await asyncio.sleep(0)
    opened = told("opened", client)
    vip, backend = opened["destination"], opened["backend"]
    hub.tell(opened)
    hub.tell(told("closed", client, reason="finished", duration=1.25))
    hub.tell(told("dropped", client, reason="drop_no_port"))
    assert await texts(ear, 3) == [
        f"web: a packet from {client} to {vip}/tcp for {backend} is dropped: no port",
        f"web: {client} to {vip}/tcp, served by {backend}, is closed (finished) after 1.2 s",
        f"web: {client} to {vip}/tcp, served by {backend}, is opened",
    ]


async def test_keeps_the_newest() -> None:
    hub = EventHub()
    ear = PageEar(hub)
    ear.newest()
    await asyncio.sleep(0)
    for port in range(3 * KEPT):
        hub.tell(told("opened", f"192.0.2.1:{port}"))
    found = await texts(ear, KEPT)
    assert len(found) == KEPT
    assert f"192.0.2.1:{3 * KEPT - 1} " in found[0]


async def test_nobody_listens_once_the_page_asks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_ear, "LISTENS", 0.05)
    hub = EventHub()
    assert not hub.is_heard
    ear = PageEar(hub)
    ear.newest()
    await asyncio.sleep(0)
    assert hub.is_heard
    await until(lambda: not hub.is_heard, limit=30)
    assert ear.newest() == []
