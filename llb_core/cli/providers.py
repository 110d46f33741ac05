"""`llb providers`, `llb providers show` and `llb providers new`; `test` is `try_provider`'s."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llb_core.cli import show, try_provider
from llb_core.cli.options import JsonOption

if TYPE_CHECKING:
    from llb_core.installed import InstalledProvider

app = typer.Typer(help="The providers that are installed, or list them.")

LIST_LIMIT = 10.0
"""Seconds that each provider has to be imported where all are listed."""

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As in llb.toml.")]


@app.callback(invoke_without_command=True)
def providers(context: typer.Context, json: JsonOption = False) -> None:
    """Show the providers that a configuration can name; `show NAME` documents one's options."""
    if context.invoked_subcommand is None:
        list_providers(json)


@app.command("list")
def list_providers(json: JsonOption = False) -> None:
    """Show the providers that a configuration can name, where each is from, and its options."""
    from llb_core.installed import available
    from llb_core.strangers import stdout_kept

    with stdout_kept():
        views = [_view(each) for each in available()]
    if json:
        show.as_json({"providers": views})
    elif views:
        show.table(
            ("PROVIDER", "PACKAGE", "VERSION", "OPTIONS"),
            [(v["name"], v["distribution"], v["version"], _options(v)) for v in views],
        )
    else:
        show.remark("no provider is installed: pip install llb-provider-static, for one")


@app.command("show")
def show_provider(name: NameArgument, json: JsonOption = False) -> None:
    """Document the options of a provider: type, default and meaning of each."""
    from dataclasses import asdict

    from llb_core.installed import available
    from llb_core.plugins import described, provider_class
    from llb_core.strangers import stdout_kept

    with stdout_kept():
        found = provider_class(name)
        options = described(name, LIST_LIMIT)
    installed = next(each for each in available() if each.name == name)
    summary = (found.__doc__ or "").strip().partition("\n")[0]
    if json:
        documented = [{**asdict(each), "is_required": each.default is None} for each in options]
        show.as_json({**asdict(installed), "summary": summary, "options": documented})
        return
    typer.echo(f"{name} ({installed.distribution} {installed.version})")
    typer.echo(f"{summary}\n" if summary else "")
    if not options:
        typer.echo("It has no options.")
        return
    show.table(
        ("OPTION", "TYPE", "DEFAULT", "MEANING"),
        [
            (
                each.name,
                each.type,
                "(needed)" if each.default is None else each.default,
                each.description,
            )
            for each in options
        ],
    )


@app.command("new")
def new_provider(
    name: NameArgument,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to write it; by default llb-provider-NAME."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a package with a provider of your own, ready to build, with its tests.

    It reads a CSV file as it stands: have `gather_backends` ask whatever knows your backends.
    """
    from llb_core.cli.new_package import next_steps, write
    from llb_core.errors import ConfigurationError
    from llb_core.installed import available

    for each in available():
        if each.name == name:
            raise ConfigurationError(
                f'provider "{name}" is there already, of {each.distribution} {each.version}, and '
                "of two that bring one name LLB takes neither: choose another name, or first pip "
                f"uninstall {each.distribution}"
            )
    target = folder or Path(f"llb-provider-{name}")
    written = [str(path) for path in write(name, target)]
    if json:
        show.as_json({"name": name, "folder": str(target), "files": written})
        return
    for path in written:
        typer.echo(path)
    show.remark("to build, test and try it:")
    for step in next_steps(name, target):
        typer.echo(f"  {step}", err=True)


app.command("test")(try_provider.try_provider)


def _view(installed: InstalledProvider) -> dict[str, Any]:
    """Return what is said of a provider; one that can't be imported harms no other."""
    from dataclasses import asdict

    from llb_core.errors import ConfigurationError
    from llb_core.plugins import described

    view: dict[str, Any] = {**asdict(installed), "options": [], "error": ""}
    try:
        options = described(installed.name, LIST_LIMIT)
    except ConfigurationError as error:
        return view | {"error": str(error)}
    return view | {
        "options": [
            {"name": option.name, "is_required": option.default is None} for option in options
        ]
    }


def _options(view: dict[str, Any]) -> str:
    if view["error"]:
        return str(view["error"])
    return ", ".join(each["name"] for each in view["options"])
