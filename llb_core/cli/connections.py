"""`llb connections`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import TABLES_TIMEOUT, balancer_name
from llb_core.cli.observe import client as daemon
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from llb_core.errors import DaemonUnreachable

SHOWN = 100
"""Connections that are shown where nothing else is asked for."""


def connections(
    service: Annotated[
        str | None, typer.Option("--service", "-s", help="Only this service's.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Only this one's: 10.0.0.2:8080, or 10.0.0.2.")
    ] = None,
    client: Annotated[
        str | None, typer.Option(help="Only from there: an address, with :PORT or not, a network.")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Only in this state: opening, established, closing, closed or udp."),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="By age, idle, bytes, packets, client or backend.")
    ] = "age",
    limit: Annotated[int, typer.Option(min=0, help="How many are shown; 0 shows all.")] = SHOWN,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """List connections, the oldest first: who talks to whom, in what state, and how much."""
    chosen: dict[str, Any] = {
        "service": service,
        "backend": backend,
        "client": client,
        "sort": sort,
        "limit": limit or None,
    }
    states = tuple(state or ())
    form = "json" if json else "text"
    out = sys.stdout.buffer
    try:
        for part in daemon(config, timeout=TABLES_TIMEOUT).stream(
            "/connections", **chosen, state=states, form=form
        ):
            out.write(part)
    except DaemonUnreachable as error:
        # Only where it is needed: it imports numpy and what reads the maps.
        from llb_core.api.listing import Request

        request = Request(**chosen, states=states, as_json=json)
        request.check()
        balancer = balancer_name(config)
        show.remark(f"{error}; this is read from the pinned maps")
        for piece in request.answer(balancer, "maps"):
            out.write(piece)
    out.flush()
