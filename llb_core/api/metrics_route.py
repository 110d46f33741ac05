"""`GET /metrics`, on the control socket and the read-only listener alike."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable

from aiohttp import web

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WORTH_COMPRESSING = 4_096


def metrics_route(metrics: Callable[[], Awaitable[bytes]]) -> web.RouteDef:
    """Return the resource that Prometheus reads."""

    async def handle(request: web.Request) -> web.StreamResponse:
        text = await metrics()
        headers = {"Content-Type": _CONTENT_TYPE}
        if "gzip" in request.headers.get("Accept-Encoding", "") and len(text) > _WORTH_COMPRESSING:
            # Without the interpreter's lock, and level 1 is quick: 12 MB in 30 ms.
            text = await asyncio.to_thread(gzip.compress, text, 1)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=text, headers=headers)

    return web.get("/metrics", handle)
