"""`llb demo`: LLB at work on real traffic, in network namespaces of its own."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from llb_core.cli import show
from llb_core.cli.options import JsonOption


def demo(json: JsonOption = False) -> None:
    """Show LLB at work: clients, three backends, and one trouble after the other. Needs root."""
    from rich.console import Console

    from llb_core.demo.screen import Screen, Silent, as_json
    from llb_core.demo.stage import perform

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if json:
            outcome = perform(Silent())
            show.as_json(as_json(outcome))
        else:
            with Screen(Console()) as screen:
                outcome = perform(screen)
                screen.finish(outcome)
    except KeyboardInterrupt:
        print("llb: demo: interrupted; everything it made is removed", file=sys.stderr)
        raise typer.Exit(130) from None
    if outcome.complaints:
        raise typer.Exit(1)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
