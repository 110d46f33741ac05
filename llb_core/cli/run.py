"""`llb run`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption
from llb_core.logs import LogFormat
from llb_core.undisturbed import undisturbed


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details too.")] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(help="auto: json where standard error is the journal, and text elsewhere."),
    ] = LogFormat.AUTO,
) -> None:
    """Run the daemon, in the foreground.

    SIGTERM ends it and leaves traffic running; SIGHUP has it read its configuration again.
    """
    # numpy's algebra, which nothing here uses, would start threads of its own when it is imported,
    # and they would keep the capabilities that the daemon gives up.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with undisturbed():  # What is imported stays.
        from llb_core import daemon, logs

    logs.set_up(verbose=verbose, form=log_format)
    daemon.run(config)
