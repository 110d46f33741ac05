"""`llb status --watch`: like top, until interrupted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from llb_core.cli import show
from llb_core.cli.observe import ask
from llb_core.cli.status import COLUMNS, headlines, row, unhealthy
from llb_core.errors import LLBError

PAUSE = 2.0
"""Seconds from one look to the next."""
_BESIDES = 15
"""Lines that everything but the services takes."""

_RATES = {
    "opened": ("opened",),
    "packets": ("packets_in", "packets_out"),
    "bytes": ("bytes_in", "bytes_out"),
    "drops": ("drops",),
}


def keep_watching(path: Path) -> None:
    """Show the status again and again, until the person has seen enough."""
    console = Console(highlight=False)
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console, screen=console.is_terminal, auto_refresh=False) as live,
    ):
        for seen in looks(path):
            live.update(picture(seen, console.width, console.height), refresh=True)


def looks(path: Path) -> Iterator[dict[str, Any] | LLBError]:
    """Yield what is seen, with the rates since the look before; or why nothing can be seen."""
    before: tuple[float, dict[str, Any]] | None = None
    while True:
        now = time.monotonic()
        try:
            answer = ask(path, "status")
        except LLBError as error:
            yield error
        else:
            if before is not None:
                put_rates(answer, before[1], now - before[0])
            before = (now, answer)
            yield answer
        time.sleep(max(0.0, PAUSE - (time.monotonic() - now)))


def put_rates(answer: dict[str, Any], before: dict[str, Any], seconds: float) -> None:
    """Put the rates between two answers into the later; a counter that began anew counts from 0."""
    known = {view["name"]: view for view in before["services"]}
    for view in answer["services"]:
        if (earlier := known.get(view["name"])) is None:
            continue
        view["rates"] = {
            name: sum(_grown(view[key], earlier[key]) for key in keys) / seconds
            for name, keys in _RATES.items()
        }


def _grown(now: int, before: int) -> int:
    return now - before if now >= before else now


def picture(seen: dict[str, Any] | LLBError, width: int, height: int) -> RenderableType:
    """Return what is shown: of many services the busiest, as many as there is room for."""
    if isinstance(seen, LLBError):
        return Text(f"{seen}\n", style="red")
    services = sorted(seen["services"], key=_business, reverse=True)
    room = max(3, height - _BESIDES)
    parts: list[RenderableType] = [Text(line) for line in headlines(seen)]
    parts.append(show.live_table(COLUMNS, map(row, services[:room]), width))
    if len(services) > room:
        parts.append(Text(f"and {len(services) - room} quieter services", style="dim"))
    if reasons := list(unhealthy(seen["services"])):
        columns = ("SERVICE", "BACKEND", "WHY")
        parts += [Text("\nUnhealthy:"), show.live_table(columns, reasons[:5], width)]
        if len(reasons) > 5:
            parts.append(Text(f"and {len(reasons) - 5} more", style="dim"))
    return Group(*parts)


def _business(view: dict[str, Any]) -> tuple[float, float]:
    rates = view["rates"] or {}
    return float(rates.get("opened", 0.0)), float(rates.get("bytes", 0.0))
