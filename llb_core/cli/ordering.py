"""`llb drain`, `undrain`, `disable`, `enable` and `weight`: what operators order for a backend."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.interrupted import telling
from llb_core.cli.observe import ORDER_TIMEOUT, client
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from llb_core.errors import NotCarriedOut

BackendArgument = Annotated[
    str, typer.Argument(metavar="BACKEND", help="As 10.0.0.2:8080, or 10.0.0.2 for every port.")
]
ServiceOption = Annotated[str | None, typer.Option("--service", "-s", help="Only in this service.")]
WhyOption = Annotated[
    str, typer.Option("--why", help="The reason, which llb backends and the log show.")
]

_DONE = {
    "drain": "drained",
    "undrain": "undrained",
    "disable": "disabled",
    "enable": "enabled",
}


def drain(
    backend: BackendArgument,
    service: ServiceOption = None,
    why: WhyOption = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when its last connection has gone.")
    ] = False,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="As 5m: end the connections that are left after that time."
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Let a backend keep its connections, and give it no new ones, until it is undrained.

    The daemon keeps the deadline, whether this waits or not; and the drain stands where the waiting
    is interrupted.
    """
    seconds = None if deadline is None else _seconds(deadline)
    order = partial(_give, "drain", backend, service, why, config, deadline=seconds)
    interruption = _telling("drain", backend, service, config)
    if not wait:
        with interruption:
            answer = order()
        _show("drain", answer, json)
        return
    from llb_core.cli import waiting

    with interruption as is_known:
        try:
            drained = order()["backends"]
        except NotCarriedOut as error:
            is_known("the drain stands")
            show.remark(str(error))
            drained = waiting.standing_drains(config, backend, service)
        else:
            is_known("the drain stands")
            if not json:
                _show("drain", {"backends": drained}, json)
        waiting.wait_for_drains(config, drained, json=json)


def _command(order: str, text: str) -> Callable[..., None]:
    """Return the command for an order that needs no more than a backend."""

    def command(
        backend: BackendArgument,
        service: ServiceOption = None,
        why: WhyOption = "",
        config: ConfigOption = DEFAULT_CONFIG,
        json: JsonOption = False,
    ) -> None:
        _order(order, backend, service, why, config, json)

    command.__name__, command.__doc__ = order, text
    return command


undrain = _command("undrain", "Give a drained backend new connections again.")
disable = _command(
    "disable", "Give a backend no new connections and end those it has, until it is enabled."
)
enable = _command("enable", "Give a disabled backend connections again.")


def weight(
    backend: BackendArgument,
    weight: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHT|provider",
            help="0 to 65535, where 0 takes no new connections; or `provider`: what that says.",
        ),
    ],
    service: ServiceOption = None,
    why: WhyOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Give a backend another weight than its provider does, until that is taken back."""
    _order("weight", backend, service, why, config, json, weight=_weight(weight))


def _weight(text: str) -> int | None:
    from llb_core.errors import ConfigurationError
    from llb_core.model import MAX_WEIGHT

    if text == "provider":
        return None
    if text.isascii() and text.isdecimal() and int(text) <= MAX_WEIGHT:
        return int(text)
    raise ConfigurationError(
        f'"{text}" is not a weight: give a number from 0 to {MAX_WEIGHT}, or the word provider'
    )


def _seconds(text: str) -> float:
    from llb_core.durations import parse_duration
    from llb_core.errors import ConfigurationError
    from llb_core.model import MAX_DEADLINE_DAYS

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"--deadline: {error}") from None
    if seconds > MAX_DEADLINE_DAYS * 86400:
        raise ConfigurationError(f'--deadline: "{text}" is more than {MAX_DEADLINE_DAYS}d')
    return seconds


def _order(
    order: str,
    backend: str,
    service: str | None,
    why: str,
    config: Path,
    json: bool,
    **arguments: object,
) -> None:
    with _telling(order, backend, service, config, **arguments):
        answer = _give(order, backend, service, why, config, **arguments)
    _show(order, answer, json, **arguments)


def _telling(
    order: str, backend: str, service: str | None, config: Path, **arguments: object
) -> AbstractContextManager[Callable[[str], None]]:
    """Say, where it is interrupted, that the order may stand, and what takes it back; of one that
    takes back itself, where to look."""
    undone_by = {"drain": ["undrain", backend], "disable": ["enable", backend]}
    if arguments.get("weight") is not None:
        undone_by["weight"] = ["weight", backend, "provider"]
    if order not in undone_by:
        return telling("it may be carried out all the same", "backends", config=config)
    words = [*undone_by[order], *([] if service is None else ["--service", service])]
    what = "drain" if order == "drain" else "order"
    return telling(f"the {what} may stand", *words, config=config)


def _give(
    order: str, backend: str, service: str | None, why: str, config: Path, **arguments: object
) -> Any:
    return client(config, timeout=ORDER_TIMEOUT).post(
        f"/{order}",
        backend=backend,
        service=service,
        why=why,
        sudo_user=os.environ.get("SUDO_USER") or None,
        **arguments,
    )


def _show(order: str, answer: dict[str, Any], json: bool, **arguments: object) -> None:
    if json:
        show.as_json(answer)
        return
    for each in answer["backends"]:
        typer.echo(f"{each['service']}: {each['backend']} {_outcome(order, arguments)}")


def _outcome(order: str, arguments: dict[str, object]) -> str:
    if order != "weight":
        return f"is {_DONE[order]}"
    chosen = arguments["weight"]
    return "has its provider's weight" if chosen is None else f"has the weight {chosen}"
