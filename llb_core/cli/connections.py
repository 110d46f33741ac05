"""`llb connections`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llb_core.cli import show
from llb_core.cli.observe import client as daemon
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from llb_core.api.listing import Request
    from llb_core.config import Config

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
    from llb_core.api.listing import Request

    _show(
        config,
        Request(
            service=service,
            backend=backend,
            client=client,
            states=tuple(state or ()),
            sort=sort,
            limit=limit or None,
            as_json=json,
        ),
    )


def _show(path: Path, request: Request) -> None:
    from llb_core.config import load
    from llb_core.errors import DaemonUnreachable

    request.check()
    loaded = load(path)
    try:
        for piece in _ask(loaded, request):
            sys.stdout.buffer.write(piece)
    except DaemonUnreachable as error:
        from llb_core.api.listing import write

        show.remark(f"{error}; this is read from the pinned maps")
        for piece in write(loaded.loadbalancer, request, "maps"):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _ask(config: Config, request: Request) -> Iterator[bytes]:
    return daemon(config).stream(
        "/connections",
        service=request.service,
        backend=request.backend,
        client=request.client,
        state=request.states,
        sort=request.sort,
        limit=request.limit,
        form="json" if request.as_json else "text",
    )
