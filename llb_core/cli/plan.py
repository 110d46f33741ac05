"""`llb plan`."""

from __future__ import annotations

import typer

from llb_core.cli import show
from llb_core.cli.observe import ask
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption


def plan(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show what would be changed now, without changing it: a line for each write to a map.

    With a daemon, what its next turn would do, which is nothing most of the time; without one,
    what a daemon would do that is started now.
    """
    from llb_core.config import load

    answer = ask(load(config), "plan")
    if json:
        show.as_json(answer)
        return
    for change in answer["changes"]:
        typer.echo(change)
    if not answer["changes"]:
        show.remark("there is nothing to change")
