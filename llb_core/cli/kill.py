"""`llb kill`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from llb_core.cli import show
from llb_core.cli.interrupted import telling
from llb_core.cli.observe import ORDER_TIMEOUT, client
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption


def kill(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[CLIENT:PORT]", help="Whose connection, as 198.51.100.7:40000."),
    ] = None,
    vip: Annotated[
        str | None,
        typer.Argument(metavar="[VIP:PORT]", help="Only the one to there."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend", "-b", metavar="BACKEND", help="All of this backend, as for drain."
        ),
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", "-s", help="With --backend: only in this service.")
    ] = None,
    why: Annotated[str, typer.Option("--why", help="The reason, which the log shows.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """End a connection, or all of a backend: they are forgotten, and both sides are reset.

    A backend that is not drained gets new connections all the same: see drain and disable.
    """
    with telling("connections may be ended all the same", "connections", config=config):
        answer = client(config, timeout=ORDER_TIMEOUT).post(
            "/kill",
            client=source,
            vip=vip,
            backend=backend,
            service=service,
            why=why,
            sudo_user=os.environ.get("SUDO_USER") or None,
        )
    if json:
        show.as_json(answer)
        return
    for each in answer["connections"]:
        typer.echo(
            f"{each['service']}: {each['client']} to {each['vip']}/{each['protocol']}, "
            f"served by {each['backend']}, is ended"
        )
    if (rest := answer["ended"] - len(answer["connections"])) > 0:
        typer.echo(f"and {rest} more")
    if not answer["ended"]:
        show.remark("there were no connections")
