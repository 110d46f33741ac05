"""`llb reload` and `llb plan`: what the configuration's file would change, and to take it over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.interrupted import telling
from llb_core.cli.observe import ORDER_TIMEOUT, client
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption


def reload(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would change, and change nothing.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Have the daemon take its configuration over, whole or not at all; show what it changed."""
    from llb_core.config import load

    loaded = load(config)
    if dry_run:
        _show(_ask(loaded, dry_run=True), json, was="is")
        return
    with telling("it may be carried out all the same", "plan", config=config):
        answer = _ask(loaded, dry_run=False)
    _show(answer, json, was="was")


def plan(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show what would be changed now, without changing it: a line for each write to a map.

    With a daemon, what a reload of its configuration would do; without one, what a daemon would do
    that is started now.
    """
    from llb_core.config import load
    from llb_core.errors import DaemonUnreachable

    loaded = load(config)
    try:
        answer = _ask(loaded, dry_run=True)
    except DaemonUnreachable as error:
        from llb_core.cli import offline

        answer = offline.plan(loaded)
        show.remark(f"{error}; this is read from the pinned maps")
    _show(answer, json, was="is")


def _ask(config: Any, *, dry_run: bool) -> Any:
    """Ask the daemon; ConfigurationError where it runs with another file than the caller's."""
    from llb_core.errors import ConfigurationError

    running = Path(client(config.path).get("/status")["config"])
    if running != config.path.absolute():
        raise ConfigurationError(
            f"{config.path}: the daemon runs with {running}: name that with -c, or restart it"
        )
    return client(config.path, timeout=ORDER_TIMEOUT).post("/reload", dry_run=dry_run)


def _show(answer: dict[str, Any], json: bool, *, was: str) -> None:
    for complaint in answer.get("complaints", ()):  # A daemon of an earlier version has none.
        show.remark(complaint)
    if json:
        show.as_json(answer)
        return
    lines = [*answer.get("settings", ()), *answer["changes"]]
    for line in lines:
        typer.echo(line)
    if not lines:
        show.remark(f"there {was} nothing to change")
