"""`llb doctor`: what the host lacks, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llb_core.cli import show
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from llb_core.config import Config
    from llb_core.doctor import Finding
    from llb_core.errors import LLBError
    from llb_core.model import Endpoint, ServiceBackend
    from llb_core.plugins import Loaded

TIMEOUT = 5.0
"""Seconds that the daemon has to answer."""

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def doctor(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Look at what LLB needs of this host, and name the remedy for what is missing.

    The exit code is 1 where anything fails; a warning is no failure.
    """
    from llb_core.doctor import State

    findings = list(_look(config))
    is_well = not any(each.state is State.FAIL for each in findings)
    if json:
        show.as_json({"is_well": is_well, "findings": [asdict(each) for each in findings]})
    else:
        for each in findings:
            _show(each)
    if not is_well:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.state]
    typer.echo(f"{typer.style(mark, fg=colour)}  {finding.what}: {finding.found}")
    if finding.remedy:
        typer.echo(f"      {finding.remedy}")


def _look(path: Path) -> Iterator[Finding]:
    from llb_core.config import load
    from llb_core.doctor import Finding, State
    from llb_core.doctor.backends import look_at_backends
    from llb_core.doctor.host import look_at_host
    from llb_core.doctor.network import look_at_network
    from llb_core.errors import DaemonUnreachable, LLBError, MayNotAsk
    from llb_core.plugins import load_providers
    from llb_core.run_folder import RunFolder

    if path == DEFAULT_CONFIG and not path.exists():
        yield from look_at_host()
        return
    try:
        config = load(path)
        providers = load_providers(config)
    except LLBError as error:
        yield from look_at_host()
        yield Finding(
            "configuration", State.FAIL, str(error), "mend the file; llb check shows the rest"
        )
        return
    daemon: int | None
    try:
        daemon, known, answering = _from_daemon(config)
        finding = Finding("daemon", State.OK, "it answers")
    except (DaemonUnreachable, MayNotAsk) as error:
        daemon = RunFolder(config.loadbalancer.name).holder()
        finding = _without_answer(error, daemon)
        known, answering = _from_providers(config, providers)
    is_running = daemon is not None
    backends = _by_endpoint(known)
    yield from look_at_host(len(backends), daemon)
    yield Finding("configuration", State.OK, str(path))
    yield finding
    yield answering
    yield from look_at_network(
        config.loadbalancer, config.families, config.vips, is_running=is_running
    )
    yield from look_at_backends(config.loadbalancer, backends)


def _without_answer(error: LLBError, holder: int | None) -> Finding:
    """Return why there is no answer: another is started only where no process holds the lock."""
    from llb_core.doctor.finding import Finding, State
    from llb_core.errors import MayNotAsk

    if isinstance(error, MayNotAsk):
        return Finding("daemon", State.WARN, "you may not ask it", "run llb doctor as root")
    if holder is None:
        return Finding("daemon", State.WARN, "none runs", "llb run")
    return Finding(
        "daemon", State.FAIL, f"pid {holder} does not answer", "look at its log, and restart it"
    )


def _providers(without_answer: list[str], failing: list[str]) -> Finding:
    """Return how the providers are: the `failing` ones keep nothing from working, or from
    starting."""
    from llb_core.doctor.finding import State, judge, some

    return judge(
        "providers",
        not (without_answer or failing),
        some([*without_answer, *failing]) or "all answer",
        "llb providers test NAME asks one, beside the daemon",
        State.FAIL if without_answer else State.WARN,
    )


def _from_daemon(config: Config) -> tuple[int, list[ServiceBackend], Finding]:
    """Return the daemon's process, the backends that it knows, and how its providers are; raises
    as `Client` does where it does not answer."""
    from llb_core.cli.observe import client
    from llb_core.model import Endpoint

    control = client(config.path, timeout=TIMEOUT)
    status, views = control.get("/status"), control.get("/backends")["backends"]
    without_answer, failing = [], []
    for service in status["services"]:
        for source in service["sources"]:
            why = source["error"] or "it has not answered yet"
            complaint = f"{service['name']}: provider {source['provider']}: {why}"
            if not source["is_ready"]:
                without_answer.append(complaint)
            elif source["error"]:
                failing.append(complaint)
    backends = [(view["service"], Endpoint.parse(view["backend"])) for view in views]
    return status["pid"], backends, _providers(without_answer, failing)


def _from_providers(config: Config, providers: Loaded) -> tuple[list[ServiceBackend], Finding]:
    """Return the backends that the providers name, each of which is asked once, and how these
    are: a daemon starts without their answers, and keeps what is installed until it has them."""
    from llb_core.preview import answered, registered_backends

    complaints: list[str] = []
    with answered(config, providers, complain=complaints.append) as sources:
        return sorted(registered_backends(sources)), _providers([], complaints)


def _by_endpoint(backends: Iterable[ServiceBackend]) -> dict[Endpoint, str]:
    """Return each backend once, with the names of all services that it stands in."""
    services: dict[Endpoint, list[str]] = {}
    for service, endpoint in backends:
        services.setdefault(endpoint, []).append(service)
    return {endpoint: ", ".join(names) for endpoint, names in services.items()}
