"""All commands under one name. Each is imported, and made ready, where it is called or listed: that
takes longer than most of them do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Annotated

import typer

COMMANDS = {
    "run": "run",
    "check": "check",
    "plan": "reload",
    "reload": "reload",
    "status": "status",
    "backends": "backends",
    "connections": "connections",
    "who": "who",
    "events": "events",
    "top": "top",
    "why": "why",
    "drain": "ordering",
    "undrain": "ordering",
    "disable": "ordering",
    "enable": "ordering",
    "weight": "ordering",
    "kill": "kill",
    "detach": "detach",
    "doctor": "doctor",
    "demo": "demo",
    "providers": "providers",
}
"""Every command, and the module that it is in."""


_CONTEXTS = {"weight": {"ignore_unknown_options": True}}
"""A weight below 0 looks like an option, and is to be refused as a weight."""


def application(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return `llb` with these of its commands."""
    made = typer.Typer(
        name="llb",
        help="LLB, a layer-4 load balancer: an eBPF classifier and the daemon that feeds it.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_llb)
    for name in names:
        module = import_module(f"llb_core.cli.{COMMANDS[name]}")
        if hasattr(module, "app"):  # One with commands of its own.
            made.add_typer(module.app, name=name)
        else:
            made.command(context_settings=_CONTEXTS.get(name))(getattr(module, name))
    return made


def called_by(arguments: Sequence[str]) -> typer.Typer:
    """Return `llb` with the command alone that is called; with all where it is not plain which."""
    return application(arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"llb {version('llb')}")
        raise typer.Exit


def _llb(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, and exit."
        ),
    ] = False,
) -> None:
    pass
