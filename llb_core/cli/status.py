"""`llb status`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import ask
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

COLUMNS = (
    "SERVICE", "ADDRESS", "BACKENDS>", "ACTIVE>", "UNHEALTHY>", "CONNECTIONS>", "OPENED>", "DROPS>",
    "PROVIDER",
)  # fmt: skip


def status(
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only say, by the exit code, whether every service has a healthy backend.",
        ),
    ] = False,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", "-s", help="With --check: only this service; may be repeated."),
    ] = None,
    maps_suffice: Annotated[
        bool,
        typer.Option(
            "--maps-suffice",
            help="With --check: without a daemon, be content with what the maps hold.",
        ),
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show the daemon, its services, and what became of the packets.

    With --check the exit code is 0 where every service has a healthy backend that takes
    connections, and 1 where one has none or no daemon answers: for keepalived, BIRD, ExaBGP.
    """
    from llb_core.config import load

    loaded = load(config)
    if check:
        from llb_core.cli.status_check import run

        run(loaded, tuple(service or ()), maps_suffice=maps_suffice, json=json)
        return
    if service or maps_suffice:
        from llb_core.errors import ConfigurationError

        raise ConfigurationError("--service and --maps-suffice go with --check alone")
    answer = ask(loaded, "status")
    if json:
        show.as_json(answer)
        return
    if answer["source"] == "daemon":
        _show_daemon(answer)
    show.table(COLUMNS, map(_row, answer["services"]))
    verdicts = {name: number for name, number in answer["verdicts"].items() if number}
    if verdicts:
        typer.echo("\nPackets by verdict:")
        show.table(
            ("VERDICT", "PACKETS>"),
            [(name.replace("_", " "), str(number)) for name, number in verdicts.items()],
        )


def _show_daemon(answer: dict[str, Any]) -> None:
    typer.echo(
        f"{answer['name']}: daemon {answer['version']}, pid {answer['pid']}, "
        f"for {show.ago(answer['started'])}, {answer['config']}"
    )
    if answer["connections"] is not None:
        states = answer["connections_by_state"] or {}
        by_state = ", ".join(f"{number} {name}" for name, number in states.items())
        typer.echo(
            f"{answer['connections']} of {answer['max_connections']} connections"
            + (f": {by_state}" if by_state else "")
        )
    typer.echo()


def _row(view: dict[str, Any]) -> tuple[str, ...]:
    return (
        view["name"],
        ", ".join(view["addresses"]),
        str(view["backends"]),
        str(view["active"]),
        str(view["unhealthy"]),
        show.count(view["connections"]),
        show.count(view["opened"]),
        show.count(view["drops"]),
        "; ".join(map(_source, view.get("sources", ()))),
    )


def _source(view: dict[str, Any]) -> str:
    if not view["error"]:
        return str(view["provider"]) if view["is_ready"] else f"waiting: {view['provider']}"
    age = f", last answer {show.duration(view['age'])} old" if view["is_ready"] else ""
    return f"failing: {view['provider']}{age}: {view['error']}"
