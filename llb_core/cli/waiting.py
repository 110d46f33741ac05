"""Wait until backends that are drained have no connections left, over restarts of the daemon: an
order outlives it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import client
from llb_core.errors import DaemonUnreachable, LLBError, MayNotAsk

if TYPE_CHECKING:
    from llb_core.api.client import Client

PAUSE = 0.5
"""Seconds between two looks."""
RESTART_LIMIT = 120.0
"""Seconds that a daemon may take that is restarted or upgraded, until it is missed."""


def standing_drains(config: Path, backend: str, service: str | None) -> list[dict[str, str]]:
    """Return the backends that are meant and for which an order to drain stands; LLBError where
    none does any longer."""
    from llb_core.model import Endpoint
    from llb_core.orders import Selection

    drained = {
        (view["service"], Endpoint.parse(view["backend"]))
        for view in _backends(client(config))
        if any(order["order"] == "drain" for order in view["orders"])
    }
    selection = Selection.parse(backend, service)
    meant = selection.among(drained)
    if not meant:
        where = "" if service is None else f"{service}: "
        raise LLBError(f"{where}{selection} is drained no longer")
    return [{"service": name, "backend": str(endpoint)} for name, endpoint in sorted(meant)]


def wait_for_drains(config: Path, backends: list[dict[str, str]], *, json: bool) -> None:
    """Return when all have none left, and say of each when it has; LLBError where one of them is
    no longer drained."""
    control = client(config)
    waiting = {(each["service"], each["backend"]) for each in backends}
    done: list[dict[str, Any]] = []
    while True:
        views = {(view["service"], view["backend"]): view for view in _backends(control)}
        for name in sorted(waiting):
            view = views.get(name)
            deadline = None
            if view is None:  # Deregistered, and its last connection has gone.
                at = time.time()
            else:
                drain = [each for each in view["orders"] if each["order"] == "drain"]
                if view["mode"] != "retired" and not drain:
                    raise LLBError(f"{name[0]}: {name[1]} is drained no longer")
                if view["mode"] == "retired" or drain[0]["done"] is None:
                    continue
                at, deadline = drain[0]["done"], drain[0].get("deadline")
            waiting.discard(name)
            done.append({"service": name[0], "backend": name[1], "done": at})
            if not json:
                came = "" if deadline is None or at < deadline else ": its deadline has come"
                typer.echo(f"{name[0]}: {name[1]} has no connections left{came}")
        if not waiting:
            break
        time.sleep(PAUSE)
    if json:
        show.as_json({"order": "drain", "backends": done})


def _backends(control: Client) -> list[dict[str, Any]]:
    """Return what the daemon says of each; where none answers, what the next one does."""
    until: float | None = None
    while True:
        try:
            views: list[dict[str, Any]] = control.get("/backends")["backends"]
        except (DaemonUnreachable, MayNotAsk) as error:  # The next one's socket is not open yet.
            if until is None:
                until = time.monotonic() + RESTART_LIMIT
                show.remark(f"{error}; the drain stands: waiting for the next")
            elif time.monotonic() > until:
                raise
        else:
            return views
        time.sleep(PAUSE)
