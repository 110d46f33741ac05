"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from llb_core.cli import (
    backends,
    check,
    connections,
    demo,
    detach,
    doctor,
    events,
    kill,
    ordering,
    providers,
    reload,
    run,
    status,
    top,
    who,
    why,
)

app = typer.Typer(
    name="llb",
    help="LLB, a layer-4 load balancer: an eBPF classifier and the daemon that feeds it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"llb {version('llb')}")
        raise typer.Exit


@app.callback()
def _llb(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, and exit."
        ),
    ] = False,
) -> None:
    pass


for command in (
    run.run,
    check.check,
    reload.plan,
    reload.reload,
    status.status,
    backends.backends,
    connections.connections,
    who.who,
    events.events,
    top.top,
    why.why,
    ordering.drain,
    ordering.undrain,
    ordering.disable,
    ordering.enable,
    ordering.weight,
    kill.kill,
    detach.detach,
    doctor.doctor,
    demo.demo,
):
    app.command()(command)
app.add_typer(providers.app, name="providers")
