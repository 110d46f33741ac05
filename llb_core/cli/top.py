"""`llb top`."""

from __future__ import annotations

import json as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import TABLES_TIMEOUT, balancer_name
from llb_core.cli.observe import client as daemon
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from llb_core.api.top import Top

COLUMNS = ("CONNECTIONS>", "OPENED/S>", "PACKETS/S IN>", "OUT>", "BYTES/S IN>", "OUT>")


def top(
    by: Annotated[str, typer.Option(help="Clients, backends or services.")] = "client",
    sort: Annotated[str, typer.Option(help="By opened, bytes, packets or connections.")] = "opened",
    seconds: Annotated[
        float, typer.Option(min=0.1, max=60.0, help="Between two looks at the tables.")
    ] = 1.0,
    limit: Annotated[int, typer.Option(min=1, help="How many are shown.")] = 20,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show who opens most connections or sends most bytes, again and again until interrupted."""
    from llb_core.api.top import Top

    question = Top(by.removesuffix("s"), sort, seconds, limit)
    question.check()
    if json or once:
        answer = _ask(config, question)
        if json:
            show.as_json(answer)
        else:
            _show(answer)
        return
    from rich.console import Console

    console = Console()
    try:
        while True:
            answer = _ask(config, question)
            console.clear()
            _show(answer)
    except KeyboardInterrupt:
        return


def _ask(config: Path, question: Top) -> dict[str, Any]:
    from llb_core.errors import DaemonUnreachable

    try:
        pieces = daemon(config, timeout=TABLES_TIMEOUT).stream(
            "/top",
            by=question.by,
            sort=question.sort,
            seconds=question.seconds,
            limit=question.limit,
        )
        answer: dict[str, Any] = to_json.loads(b"".join(pieces))
    except DaemonUnreachable as error:
        show.remark(f"{error}; this is read from the pinned maps")
        answer = to_json.loads(b"".join(question.answer(balancer_name(config), "maps")))
    return answer


def _show(answer: dict[str, Any]) -> None:
    show.table(
        (answer["by"].upper(), *COLUMNS),
        [
            (
                each["name"],
                *map(
                    show.count,
                    (
                        each["connections"],
                        each["opened"],
                        each["packets_in"],
                        each["packets_out"],
                        each["bytes_in"],
                        each["bytes_out"],
                    ),
                ),
            )
            for each in answer["top"]
        ],
    )
