"""`llb who`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from llb_core.cli import show
from llb_core.cli.observe import TABLES_TIMEOUT, balancer_name
from llb_core.cli.observe import client as daemon
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

_COLUMNS = ("SERVICE", "CLIENT", "VIP", "SNAT", "BACKEND", "STATE", "OPENED", "LAST PACKET")
_NAMES = ("service", "client", "vip", "snat", "backend")


def who(
    address: Annotated[
        str,
        typer.Argument(metavar="ADDRESS:PORT", help="As the backend saw it: an address of LLB."),
    ],
    backend: Annotated[
        str | None, typer.Option(help="The backend that saw it: several may see the same port.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Say which client stands behind an address and port that a backend saw, or stood there in the
    last hour: the daemon remembers the 250,000 connections that ended last.
    """
    from llb_core.api.who import seen

    seen(address, backend)
    answer = _ask(config, address, backend)
    if json:
        show.as_json(answer)
        return
    _show(answer)


def _ask(config: Path, address: str, backend: str | None) -> dict[str, Any]:
    from llb_core.errors import DaemonUnreachable

    query = {"address": address} | ({"backend": backend} if backend else {})
    try:
        answer: dict[str, Any] = daemon(config, timeout=TABLES_TIMEOUT).get(
            f"/who?{urlencode(query)}"
        )
    except DaemonUnreachable as error:
        from json import loads

        from llb_core.api.who import wanted

        show.remark(f"{error}; this is read from the pinned maps, what has ended is not known")
        question = wanted(address, backend)
        answer = loads(b"".join(question.answer(balancer_name(config), "maps")))
    return answer


def _show(answer: dict[str, Any]) -> None:
    now = time.time()
    rows = [
        (*(each[name] for name in _NAMES), each["state"], now - each["age"], now - each["idle"])
        for each in answer["connections"]
    ]
    rows += [
        (*(each[name] for name in _NAMES), "ended", each["opened"], each["ended"])
        for each in answer.get("ended", ())
    ]
    if rows:
        show.table(_COLUMNS, [(*row[:-2], _when(row[-2]), _when(row[-1])) for row in rows])
    left = answer["total"] + answer.get("ended_total", 0) - len(rows)
    if left > 0:
        show.remark(f"and {left} more")
    if not rows:
        show.remark("nobody stands there, and nobody has that is remembered")
    if "ended_since" in answer:
        show.remark(f"what ended before {_when(answer['ended_since'])} may be forgotten")


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
