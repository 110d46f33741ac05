"""`llb detach`."""

from __future__ import annotations

from typing import Annotated

import typer

from llb_core.cli import show
from llb_core.cli.observe import balancer_name
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption


def detach(
    config: ConfigOption = DEFAULT_CONFIG,
    name: Annotated[
        str | None,
        typer.Option(help="The balancer's name, where its configuration does not tell it."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Take everything away: filters, maps with their connections, addresses and sysctls.

    Afterwards the host is as it was before LLB; balanced traffic ends.
    """
    from llb_core.datapath import Datapath
    from llb_core.run_folder import RunFolder

    chosen = name or balancer_name(config)
    folder = RunFolder(chosen)
    with folder.locked():
        done = Datapath.detach(chosen)
        folder.remove()
    if json:
        show.as_json({"name": chosen, "done": done})
        return
    for each in done:
        typer.echo(each)
    if not done:
        show.remark(f'nothing was installed under the name "{chosen}"')
