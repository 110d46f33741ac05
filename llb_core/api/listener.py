"""The read-only listener: over TCP, what the page and Prometheus read, and never an order.

It follows the configuration, over reloads too. That it can't listen is told and tried again; it is
no reason to leave traffic without a daemon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from llb_core.api.page import page_routes
from llb_core.api.patience import Patience
from llb_core.api.server import Control, application
from llb_core.model import Endpoint

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds until a reload is followed, and until it is tried again where it failed."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def read_only(control: Control) -> web.Application:
    """Make what is served over TCP."""
    made = application(control, may_write=False)
    made.add_routes(page_routes(control.page))
    made.middlewares.append(_with_headers)
    return made


async def listen_as_configured(wanted: Callable[[], Endpoint | None], control: Control) -> None:
    """Serve where it is wanted, for ever; None is nowhere."""
    where: Endpoint | None = None
    runner: web.AppRunner | None = None
    told = ""
    try:
        while True:
            if (want := wanted()) != where:
                if runner is not None:
                    await runner.cleanup()
                runner, where = None, None
                if want is not None:
                    try:
                        runner = await _listen(want, control)
                        where, told = want, ""
                        log.info("the status page and metrics are at http://%s/", want)
                    except OSError as error:
                        said = f"{want} can't be listened on: {error.strerror}"
                        if said != told:
                            log.error("api.listen: %s: there is no page and no metrics", said)
                        told = said
            await asyncio.sleep(PAUSE)
    finally:
        if runner is not None:
            await runner.cleanup()


async def _listen(where: Endpoint, control: Control) -> web.AppRunner:
    made, patience = read_only(control), Patience()
    made.middlewares.insert(0, patience.middleware)
    runner = web.AppRunner(made, access_log=None, shutdown_timeout=1.0)

    async def watching(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(patience.run(runner))
        yield
        task.cancel()

    made.cleanup_ctx.append(watching)
    await runner.setup()
    try:
        await web.TCPSite(runner, str(where.address), where.port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


@web.middleware
async def _with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response
