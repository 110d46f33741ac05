"""`llb backends`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.observe import ask
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from llb_core.config import Config

COLUMNS = (
    "SERVICE", "BACKEND", "MODE", "HEALTH", "SINCE>", "WEIGHT>", "CONNECTIONS>", "OPENED>", "IN>",
    "OUT>", "ORDERED",
)  # fmt: skip


def backends(
    service: Annotated[str | None, typer.Argument(help="Only this service's.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show every backend: whether it takes connections, its health, and what it carries."""
    answer = ask(config, "backends", lambda loaded: _refuse_unconfigured(loaded, service))
    if service is not None:
        answer["backends"] = [each for each in answer["backends"] if each["service"] == service]
        if not answer["backends"]:
            services = ask(config, "status")["services"]
            _refuse_unknown(config, service, {each["name"] for each in services})
    if json:
        show.as_json(answer)
    elif answer["backends"]:
        show.table(COLUMNS, map(_row, answer["backends"]))
    else:
        show.remark("there are no backends")


def _refuse_unconfigured(config: Config, service: str | None) -> None:
    if service is not None:
        _refuse_unknown(config.path, service, {each.service.name for each in config.services})


def _refuse_unknown(path: Path, service: str, known: Collection[str]) -> None:
    from llb_core.errors import ConfigurationError

    if service not in known:
        raise ConfigurationError(f'{path}: there is no service "{service}"')


def _row(view: dict[str, Any]) -> tuple[str, ...]:
    health = f"{view['health']}: {view['reason']}" if view["reason"] else view["health"]
    return (
        view["service"],
        view["backend"],
        view["mode"],
        health,
        show.ago(view["since"]),
        _weight(view),
        show.count(view["connections"]),
        show.count(view["opened"]),
        show.count(view["packets_in"]),
        show.count(view["packets_out"]),
        "; ".join(map(_ordered, view["orders"])),
    )


def _weight(view: dict[str, Any]) -> str:
    said = show.weights(view["provider_weights"])
    return f"{view['weight']} ({said} said)" if said else str(view["weight"])


def _ordered(order: dict[str, Any]) -> str:
    """Return an order in words: `drain by root 5 min ago: new kernel`."""
    words = [order["order"]]
    if order["weight"] is not None:
        words.append(str(order["weight"]))
    if order["by"]:
        words.append(f"by {order['by']}")
    if order["at"] is not None:
        words.append(f"{show.ago(order['at'])} ago")
    return " ".join(words) + (f": {order['why']}" if order["why"] else "")
