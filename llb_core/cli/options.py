"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("/etc/llb/llb.toml")

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", readable=False, help="The configuration."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Show it as JSON, for programs.")]
