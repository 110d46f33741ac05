"""`llb why`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import ask
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

_SHOWN = 10
"""Services and backends that are named for each reason."""


def why(
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE:PORT", help="Whose packet.")
    ] = None,
    destination: Annotated[
        str | None, typer.Argument(metavar="DESTINATION:PORT", help="To whom.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="tcp or udp.")] = "tcp",
    flag: Annotated[str, typer.Option(help="Of TCP: syn, ack, fin or rst.")] = "syn",
    length: Annotated[int, typer.Option(min=0, max=3000, help="The payload's, in bytes.")] = 0,
    interface: Annotated[
        str | None,
        typer.Option(help="By which of LLB's it arrives; by default the likely one."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Say where a packet would go and by what steps, without sending it; or, without addresses,
    which packets were dropped, the last ones of each kind, and what to do."""
    from llb_core.config import load
    from llb_core.errors import ConfigurationError

    if source is None:
        _show_drops(ask(config, "drops"), json=json)
        return
    if destination is None:
        raise ConfigurationError("llb why takes a source and a destination, or neither")
    from llb_core.tracing import packet_of, trace

    packet = packet_of(source, destination, protocol, flag, length)
    answer = trace(load(config), packet, interface)
    if json:
        show.as_json(answer)
        return
    for each in answer["steps"]:
        typer.echo(f"{each['step']:<11} {each['text']}")
    if answer["remedy"]:
        typer.echo(f"{'':<11} {answer['remedy']}")


def _show_drops(answer: dict[str, Any], *, json: bool) -> None:
    if json:
        show.as_json(answer)
        return
    if not answer["drops"]:
        show.remark("no packet was dropped so far")
    for drop in answer["drops"]:
        typer.echo(f"{drop['reason'].replace('_', ' ')}: {drop['packets']} packets")
        typer.echo(f"  {drop['meaning']}")
        if drop["remedy"]:
            typer.echo(f"  → {drop['remedy']}")
        for own in drop["by"][:_SHOWN]:
            if own["service"]:
                at = f" at {own['backend']}" if own["backend"] else ""
                typer.echo(f"  {own['packets']} for {own['service']}{at}")
        for last in drop["last"]:
            at = datetime.fromtimestamp(last["time"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
            service = f" ({last['service']})" if last["service"] else ""
            typer.echo(
                f"  {at} {last['protocol']} {last['source']} → {last['destination']}"
                f"{service}, {last['bytes']} bytes"
            )
