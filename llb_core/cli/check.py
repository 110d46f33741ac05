"""`llb check`."""

from __future__ import annotations

import typer

from llb_core.cli import show
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption


def check(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Validate the configuration and the options of its providers. Touches nothing."""
    from llb_core.config import load
    from llb_core.plugins import load_providers
    from llb_core.strangers import stdout_kept

    loaded = load(config)
    with stdout_kept():
        load_providers(loaded)
    if json:
        show.as_json(
            {
                "config": str(config),
                "name": loaded.loadbalancer.name,
                "services": [
                    {
                        "name": each.service.name,
                        "addresses": [str(key) for key in each.service.keys],
                        "providers": [provider.name for provider in each.providers],
                        "health": each.health.type,
                    }
                    for each in loaded.services
                ],
            }
        )
        return
    count = len(loaded.services)
    typer.echo(f"{config}: is right ({count} service{'' if count == 1 else 's'})")
