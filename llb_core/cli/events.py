"""`llb events`."""

from __future__ import annotations

import json as to_json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from llb_core.cli.observe import client as daemon
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption


def events(
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these: opened, closed, dropped, registered, deregistered, healthy, "
            "unhealthy."
        ),
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", "-s", help="Only this service's.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show what happens as it happens, until interrupted; with --json a line each."""
    rest = b""
    stream = daemon(config).stream("/events", kind=tuple(kind or ()), service=service)
    try:
        for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                sys.stdout.write(line.decode() if json else _sentence(to_json.loads(line)))
                sys.stdout.write("\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def _sentence(event: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(event["time"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    service = f"{event['service']}: " if event.get("service") else ""
    return f"{at} {service}{_what(event)}"


def _what(event: dict[str, Any]) -> str:
    kind = event["kind"]
    if kind == "lost":
        return f"({event['count']} events were lost here)"
    reason = event.get("reason", "").removeprefix("drop_").replace("_", " ")
    because = f": {reason}" if reason else ""
    if "source" not in event:
        return f"{event['backend']} {kind}{because}"
    flow = f"{event['protocol']} {event['source']} → {event['destination']}"
    if kind == "dropped":
        return f"dropped {flow}, {event['bytes']} bytes{because}"
    way = f"{flow} by {event['snat']} → {event['backend']}"
    if kind == "opened":
        return f"opened {way}"
    return (
        f"closed {way} after {event['duration']:.3f} s{because}; "
        f"in {event['packets_in']} packets, {event['bytes_in']} bytes, "
        f"out {event['packets_out']}, {event['bytes_out']}"
    )
