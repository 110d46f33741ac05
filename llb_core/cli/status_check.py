"""`llb status --check`: is there a healthy backend for every service? For whatever decides by an
exit code whether this host is to have the VIPs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import client
from llb_core.errors import ConfigurationError, DaemonUnreachable, LLBError

if TYPE_CHECKING:
    from llb_core.config import Config

TIMEOUT = 2.0
"""Seconds that the daemon has to answer: one that hangs looks after nobody's health."""


def run(config: Config, services: Sequence[str], *, maps_suffice: bool, json: bool) -> None:
    """Say what is wrong, a line for each service, and end with 1 where something is."""
    known = {each.service.name for each in config.services}
    for name in services:
        if name not in known:
            raise ConfigurationError(f'{config.path}: there is no service "{name}"')
    source, faults = _look(config, maps_suffice=maps_suffice)
    wanted = set(services) or known
    faults = {name: fault for name, fault in faults.items() if name in wanted}
    if json:
        show.as_json({"source": source, "is_well": not faults, "faults": faults})
    else:
        for name, fault in faults.items():
            show.remark(f"{name}: {fault}")
        if not faults:
            typer.echo(_well(sorted(wanted)))
    if faults:
        raise typer.Exit(1)


def _look(config: Config, *, maps_suffice: bool) -> tuple[str, dict[str, str]]:
    """Return where it is known from, and what is wrong with which service."""
    configured = [each.service.name for each in config.services]
    try:
        answer = client(config, timeout=TIMEOUT).get("/status")
    except DaemonUnreachable as error:
        if not maps_suffice:
            # Its connections go on, but nobody would notice that a backend dies.
            return "none", dict.fromkeys(configured, str(error))
    else:
        return "daemon", _faults(configured, answer["services"])
    from llb_core.cli import offline

    try:
        return "maps", _faults(configured, offline.status(config)["services"])
    except LLBError as error:
        return "maps", dict.fromkeys(configured, str(error))


def _faults(configured: Iterable[str], views: Iterable[dict[str, Any]]) -> dict[str, str]:
    found = {view["name"]: view for view in views}
    faults = {}
    for name in configured:
        view = found.get(name)
        if view is None:
            faults[name] = "is not served: the daemon has not taken the configuration over"
        elif view["unserved"]:
            faults[name] = (
                f"no healthy backend takes connections for {', '.join(view['unserved'])} "
                f"({view['backends']} registered, {view['unhealthy']} unhealthy)"
            )
    return faults


def _well(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} has a healthy backend"
    return f"all {len(names)} services have a healthy backend"
