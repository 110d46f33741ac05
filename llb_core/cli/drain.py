"""`llb drain` and `llb undrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llb_core.cli import show
from llb_core.cli.observe import client
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

BackendArgument = Annotated[
    str, typer.Argument(metavar="BACKEND", help="As 10.0.0.2:8080, or 10.0.0.2 for every port.")
]
ServiceOption = Annotated[str | None, typer.Option("--service", "-s", help="Only in this service.")]


def drain(
    backend: BackendArgument,
    service: ServiceOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Let a backend keep its connections, and give it no new ones, until it is undrained."""
    _order("drain", backend, service, config, json)


def undrain(
    backend: BackendArgument,
    service: ServiceOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Give a drained backend new connections again."""
    _order("undrain", backend, service, config, json)


def _order(order: str, backend: str, service: str | None, config: Path, json: bool) -> None:
    from llb_core.config import load

    answer = client(load(config)).post(f"/{order}", backend=backend, service=service)
    if json:
        show.as_json(answer)
        return
    for each in answer[f"{order}ed"]:
        typer.echo(f"{each['service']}: {each['backend']} is {order}ed")
