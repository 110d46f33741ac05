"""`llb providers`."""

from __future__ import annotations

import typer

from llb_core.cli import show
from llb_core.cli.options import JsonOption

app = typer.Typer(help="The providers that are installed.", no_args_is_help=True)


@app.command("list")
def list_providers(json: JsonOption = False) -> None:
    """Show the providers that a configuration can name, and which package each is from."""
    from dataclasses import asdict

    from llb_core.plugins import available

    found = available()
    if json:
        show.as_json({"providers": [asdict(each) for each in found]})
    elif found:
        show.table(
            ("PROVIDER", "PACKAGE", "VERSION"),
            [(each.name, each.distribution, each.version) for each in found],
        )
    else:
        show.remark("no provider is installed: pip install llb-provider-static, for one")
