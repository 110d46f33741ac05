"""All commands under one name, and the options that they share."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("/etc/llb/llb.toml")

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Show it as JSON, for programs.")]

app = typer.Typer(
    name="llb",
    help="LLB, a layer-4 load balancer: an eBPF classifier and the daemon that feeds it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
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


def _add_commands() -> None:
    from llb_core.cli import (
        backends,
        check,
        demo,
        detach,
        doctor,
        drain,
        plan,
        providers,
        run,
        status,
    )

    for command in (
        run.run, check.check, plan.plan, status.status, backends.backends, drain.drain,
        drain.undrain, detach.detach, doctor.doctor, demo.demo,
    ):  # fmt: skip
        app.command()(command)
    app.add_typer(providers.app, name="providers")


_add_commands()
