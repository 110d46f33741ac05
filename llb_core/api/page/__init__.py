"""The status page: one file each of HTML, CSS and JavaScript, and the JSON that the page lives on.

It loads nothing from elsewhere, and gives no orders.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from llb_core.api.compressed import answer
from llb_core.api.page.live import Look

_FOLDER = Path(__file__).parent
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def page_routes(live: Callable[[Look], Awaitable[bytes]]) -> list[web.RouteDef]:
    """Return the resources of the page; `live` gives what it shows, as JSON."""
    routes = [
        web.get(path, _file((_FOLDER / name).read_bytes(), content_type))
        for path, (name, content_type) in _FILES.items()
    ]

    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(request, await live(Look.of(request.query)), "application/json")

    return [*routes, web.get("/page.json", handle)]


def _file(text: bytes, content_type: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(request, text, content_type)

    return handle
