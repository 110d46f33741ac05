"""`llb status`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import ask
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

COLUMNS = (
    "SERVICE", "ADDRESS", "BACKENDS>", "ACTIVE>", "UNHEALTHY>", "CONNECTIONS>", "OPENED>",
    "OPENED/S>", "BIT/S>", "DROPS>", "PROVIDER",
)  # fmt: skip


def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing it, the busiest services first.")
    ] = False,
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

    With --check the exit code is 0 where every service that the daemon serves has a healthy backend
    that takes connections, and 1 where one has none or no daemon answers: for keepalived, BIRD,
    ExaBGP.
    """
    if check:
        from llb_core.cli.status_check import run

        run(config, tuple(service or ()), maps_suffice=maps_suffice, json=json)
        return
    _refuse_mixture(config, bool(service) or maps_suffice, watch and json)
    if watch:
        from llb_core.cli.status_watch import keep_watching

        keep_watching(config)
        return
    answer = ask(config, "status")
    if json:
        show.as_json(answer)
        return
    for line in headlines(answer):
        typer.echo(line)
    show.table(COLUMNS, map(row, answer["services"]))
    if reasons := list(unhealthy(answer["services"])):
        typer.echo("\nUnhealthy:")
        show.table(("SERVICE", "BACKEND", "WHY"), reasons)
    if weights := list(differing(answer["services"])):
        typer.echo("\nProviders differ about weights (the first one's counts):")
        show.table(("SERVICE", "BACKEND", "WEIGHTS"), weights)
    verdicts = {name: number for name, number in answer["verdicts"].items() if number}
    if verdicts:
        typer.echo("\nPackets by verdict:")
        show.table(
            ("VERDICT", "PACKETS>"),
            [(name.replace("_", " "), str(number)) for name, number in verdicts.items()],
        )


def _refuse_mixture(path: Path, is_for_check: bool, is_watched_as_json: bool) -> None:
    from llb_core.errors import ConfigurationError

    if is_for_check:
        if not path.exists():  # The worse of the two mistakes.
            from llb_core.config import load

            load(path)
        raise ConfigurationError("--service and --maps-suffice go with --check alone")
    if is_watched_as_json:
        raise ConfigurationError("--watch is for people: ask again and again with --json instead")


def headlines(answer: dict[str, Any]) -> Iterable[str]:
    """Yield what is to be said of the daemon, a line each; nothing where none answered."""
    if answer["source"] != "daemon":
        return
    yield (
        f"{answer['name']}: daemon {answer['version']}, pid {answer['pid']}, "
        f"for {show.ago(answer['started'])}, {answer['config']}"
    )
    if error := answer.get("listen_error"):  # A daemon of before an upgrade says nothing of it.
        yield f"no status page, no metrics: {error}"
    if answer["connections"] is not None:
        # Each family has tables of its own.
        room = answer["max_connections"] * len(answer["families"])
        states = answer["connections_by_state"] or {}
        by_state = ", ".join(f"{number} {name}" for name, number in states.items())
        yield (
            f"{answer['connections']} of {room} connections" + (f": {by_state}" if by_state else "")
        )
    yield ""


def row(view: dict[str, Any]) -> tuple[str, ...]:
    """Return a service as a row of the table."""
    rates = view["rates"] or {}
    return (
        view["name"],
        ", ".join(view["addresses"]),
        str(view["backends"]),
        str(view["active"]),
        str(view["unhealthy"]),
        show.count(view["connections"]),
        show.count(view["opened"]),
        show.count(_rounded(rates.get("opened"))),
        show.count(_rounded(8 * rates["bytes"] if rates else None)),
        show.count(view["drops"]),
        "; ".join(map(_source, view.get("sources", ()))),
    )


def unhealthy(services: Iterable[dict[str, Any]]) -> Iterable[tuple[str, str, str]]:
    """Yield service, backend and why, of some unhealthy backends of each service."""
    for view in services:
        for backend, reason in view["reasons"].items():
            yield view["name"], backend, reason
        yield from _more(view, view["unhealthy"] - len(view["reasons"]))


def differing(services: Iterable[dict[str, Any]]) -> Iterable[tuple[str, str, str]]:
    """Yield service, backend and what is said of its weight, where providers differ about it, of
    some backends of each service."""
    for view in services:
        for backend, weights in view["provider_weights"].items():
            yield view["name"], backend, show.weights(weights)
        yield from _more(view, view["differing"] - len(view["provider_weights"]))


def _more(view: dict[str, Any], number: int) -> Iterable[tuple[str, str, str]]:
    if number > 0:
        yield view["name"], f"and {number} more", f"see llb backends {view['name']}"


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 1 if rate < 10 else None)


def _source(view: dict[str, Any]) -> str:
    if not view["error"]:
        return str(view["provider"]) if view["is_ready"] else f"waiting: {view['provider']}"
    age = f", last answer {show.duration(view['age'])} old" if view["is_ready"] else ""
    return f"failing: {view['provider']}{age}: {view['error']}"
