"""`llb status --check`: is there a healthy backend for every service? For whatever decides by an
exit code whether this host is to have the VIPs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import client
from llb_core.config import load
from llb_core.errors import ConfigurationError, DaemonUnreachable, LLBError, MayNotAsk

TIMEOUT = 2.0
"""Seconds that the daemon has to answer: one that hangs looks after nobody's health."""


def run(path: Path, services: Sequence[str], *, maps_suffice: bool, json: bool) -> None:
    """Say what is wrong, a line for each service, and end with 1 where something is."""
    source, wanted, faults = _look(path, services, maps_suffice=maps_suffice)
    try:
        if json:
            show.as_json({"source": source, "is_well": not faults, "faults": faults})
            sys.stdout.flush()
        else:
            for name, fault in faults.items():
                show.remark(f"{name}: {fault}")
            if not faults:
                typer.echo(_well(wanted, source))
    except OSError as error:  # The exit code is the answer, and no host loses its VIPs over a log.
        show.give_up_output(error)
    if faults:
        raise typer.Exit(1)


def _look(
    path: Path, services: Sequence[str], *, maps_suffice: bool
) -> tuple[str, list[str], dict[str, str]]:
    """Return where it is known from, which services it is about, and what is wrong with which.

    Where the daemon answers, all that counts is what it serves: its file may be half edited.
    """
    try:
        answer = client(path, timeout=TIMEOUT).get("/status")
    except (DaemonUnreachable, MayNotAsk) as error:
        unreachable = str(error)
    else:
        served = [view["name"] for view in answer["services"]]
        if unserved := set(services).difference(served):
            _refuse_unknown(path, unserved)
        wanted = sorted(set(services) or served)
        return "daemon", wanted, _faults(wanted, answer["services"], _unserved)
    config = load(path)
    configured = {each.service.name for each in config.services}
    _refuse_strangers(path, services, configured)
    wanted = sorted(set(services) or configured)
    if not maps_suffice:
        # Its connections go on, but nobody would notice that a backend dies.
        return "none", wanted, dict.fromkeys(wanted, unreachable)
    from llb_core.cli import offline

    try:
        return "maps", wanted, _faults(wanted, offline.status(config)["services"], _not_in_maps)
    except LLBError as error:
        return "maps", wanted, dict.fromkeys(wanted, str(error))


def _refuse_unknown(path: Path, unserved: Iterable[str]) -> None:
    """Raise ConfigurationError where the file has no such service either, as far as it can be
    read."""
    try:
        config = load(path)
    except ConfigurationError:
        return
    _refuse_strangers(path, unserved, {each.service.name for each in config.services})


def _refuse_strangers(path: Path, services: Iterable[str], known: Collection[str]) -> None:
    for name in services:
        if name not in known:
            raise ConfigurationError(f'{path}: there is no service "{name}"')


def _faults(
    wanted: Iterable[str],
    views: Iterable[dict[str, Any]],
    told: Callable[[dict[str, Any]], str],
) -> dict[str, str]:
    """Return what is wrong with which service; `told` says so of one with addresses that nobody
    serves."""
    found = {view["name"]: view for view in views}
    faults = {}
    for name in wanted:
        view = found.get(name)
        if view is None:
            faults[name] = "is not served: the daemon has not taken the configuration over"
        elif view["unserved"]:
            faults[name] = told(view)
    return faults


def _unserved(view: dict[str, Any]) -> str:
    return (
        f"no healthy backend takes connections for {', '.join(view['unserved'])} "
        f"({view['backends']} registered, {view['unhealthy']} unhealthy)"
    )


def _not_in_maps(view: dict[str, Any]) -> str:
    return (
        f"no backend in the maps takes connections for {', '.join(view['unserved'])} "
        f"({view['backends']} installed)"
    )


def _well(names: Sequence[str], source: str) -> str:
    who = f"{names[0]} has" if len(names) == 1 else f"all {len(names)} services have"
    if source == "maps":  # Health is in no map, and nobody checks it now.
        return f"{who} a backend in the maps; no daemon answers, so nobody knows which are healthy"
    return f"{who} a healthy backend"
