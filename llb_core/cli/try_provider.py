"""`llb providers test`: ask a provider once for each service that uses it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llb_core.cli import show
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from llb_core.config import Config, ProviderConfig, ServiceConfig
    from llb_core.trial import Known, Outcome, Trial


def try_provider(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The provider, as in llb.toml.")],
    config: ConfigOption = DEFAULT_CONFIG,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, help="Seconds that it has; by default the provider's own limit."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Ask a provider once, for each service that uses it, and change nothing.

    Shows what it said, how long that took, and what would change. Ends with 1 where it failed.
    """
    from llb_core.config import load
    from llb_core.strangers import stdout_kept

    loaded = load(config)
    with stdout_kept():
        trials = [
            (service, _begin(loaded, service, provider, timeout))
            for service in loaded.services
            for provider in service.providers
            if provider.name == name
        ]
        if not trials:
            _complain(loaded, name)
        known = _known(loaded)
        guarded = cache(partial(_guarded, loaded))  # Asked once, and where it matters alone.
        views = [_view(service, trial.outcome(), known, guarded) for service, trial in trials]
    if json:
        show.as_json({"provider": name, "services": views})
    else:
        for view in views:
            _print(name, view)
    if any(view["error"] for view in views):
        raise typer.Exit(1)


def _complain(config: Config, name: str) -> None:
    from llb_core.errors import ConfigurationError
    from llb_core.plugins import provider_class

    provider_class(name)  # One that isn't installed is the better thing to tell.
    raise ConfigurationError(f'{config.path}: no service uses provider "{name}"')


def _begin(
    config: Config, service: ServiceConfig, provider: ProviderConfig, timeout: float | None
) -> Trial:
    from llb_core.plugins import load_provider
    from llb_core.provider import ProviderContext
    from llb_core.sources import own_addresses
    from llb_core.trial import Trial

    found, options = load_provider(config, provider)
    keys = service.service.keys
    context = ProviderContext(service.service.name, config.base, keys[0].protocol)
    families = frozenset(key.endpoint.address.version for key in keys)
    networks = config.loadbalancer.backend_cidrs
    ours = own_addresses(config)
    return Trial(lambda: found(options, context), families, networks, timeout, ours=ours)


def _known(config: Config) -> dict[str, list[Known]] | None:
    """Return the backends of each service as they are now; None where that can't be told."""
    from llb_core.api.client import Client
    from llb_core.datapath import is_installed
    from llb_core.errors import DaemonUnreachable, LLBError
    from llb_core.model import Endpoint
    from llb_core.run_folder import RunFolder
    from llb_core.trial import Known

    name = config.loadbalancer.name
    try:
        try:
            views = Client(RunFolder(name).socket).get("/backends")["backends"]
        except DaemonUnreachable:
            if not is_installed(name):
                if os.geteuid() != 0:
                    show.remark("only root sees what is installed; here nothing is taken to be")
                return {}
            from llb_core.cli import offline

            views = offline.backends(config)["backends"]
    except (LLBError, OSError) as error:
        show.remark(f"what is installed can't be read, so what would change is not known: {error}")
        return None
    known: dict[str, list[Known]] = {}
    for view in views:
        backend = Known(
            Endpoint.parse(view["backend"]),
            view["weight"],
            view["mode"],
            view["health"],
            bool(view["orders"]),
        )
        known.setdefault(view["service"], []).append(backend)
    return known


def _guarded(config: Config) -> frozenset[str]:
    """Return the services for which the daemon has an answer to hold the next one against: after a
    start the first one counts at once."""
    from llb_core.api.client import Client
    from llb_core.errors import LLBError
    from llb_core.run_folder import RunFolder

    try:
        views = Client(RunFolder(config.loadbalancer.name).socket).get("/status")["services"]
    except LLBError:
        return frozenset()
    return frozenset(view["name"] for view in views if not view["is_kept"])


def _view(
    service: ServiceConfig,
    outcome: Outcome,
    known: dict[str, list[Known]] | None,
    guarded: Callable[[], frozenset[str]],
) -> dict[str, Any]:
    from llb_core.model import Backend, BackendMode
    from llb_core.trial import changes

    name = service.service.name
    is_whole = len(service.providers) == 1
    change_lines = None
    if known is not None and outcome.backends is not None:
        before = known.get(name, [])
        change_lines = list(changes(before, outcome.backends, is_whole=is_whole))
        now = [Backend(each.endpoint) for each in before if each.mode != BackendMode.RETIRED]
        is_sudden = is_whole and service.guard.is_sudden_loss(now, outcome.backends)
        if is_sudden and name in guarded():
            change_lines.append(
                f"all of it {service.guard.hold:g} s later, since so many are lost (guard); at "
                "once by a reload that changes the provider's table"
            )
    return {
        "service": name,
        "seconds": round(outcome.took, 6),
        "error": outcome.error,
        "backends": [
            {
                "backend": str(each.endpoint),
                "weight": each.weight,
                "draining": each.draining,
                "healthy": each.healthy,
            }
            for each in outcome.backends or ()
        ],
        "changes": change_lines,
        "is_whole": is_whole,
    }


def _print(name: str, view: dict[str, Any]) -> None:
    took = f"{view['seconds'] * 1000:.1f} ms"
    if view["error"]:
        show.remark(f"{view['service']}: provider {name}: {view['error']} (after {took})")
        return
    count = len(view["backends"])
    said = f"{count or 'no'} backend{'' if count == 1 else 's'}"
    typer.echo(f"{view['service']}: provider {name} says {said}, in {took}")
    if count:
        show.table(
            ("BACKEND", "WEIGHT>", "STATE"),
            [(each["backend"], str(each["weight"]), _state(each)) for each in view["backends"]],
        )
    if view["changes"] is None:
        return
    typer.echo("would change:" if view["changes"] else "nothing would change")
    for each in view["changes"]:
        typer.echo(f"  {each}")
    if not view["is_whole"]:
        typer.echo("  (other providers of the service are not asked: none is deregistered here)")


def _state(backend: dict[str, Any]) -> str:
    if backend["draining"]:
        return "draining"
    return {True: "healthy", False: "unhealthy", None: ""}[backend["healthy"]]
