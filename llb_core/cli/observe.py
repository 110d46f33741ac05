"""Ask the daemon; where none answers, read the pinned maps, and say so."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llb_core.cli.show import remark
from llb_core.errors import DaemonUnreachable
from llb_core.run_folder import RunFolder

if TYPE_CHECKING:
    from llb_core.api.client import Client
    from llb_core.config import Config

Question = Literal["status", "backends", "drops"]

_TABLE = re.compile(r"^\[loadbalancer\][^\n]*\n(.*?)(?=^\s*\[|\Z)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")


def client(config: Config, *, timeout: float = 30.0) -> Client:
    """Return the way to the daemon of this configuration."""
    return _client(config.loadbalancer.name, timeout)


def _client(name: str, timeout: float = 30.0) -> Client:
    from llb_core.api.client import Client

    return Client(RunFolder(name).socket, timeout=timeout)


def ask(
    path: Path, question: Question, check: Callable[[Config], None] = lambda _: None
) -> dict[str, Any]:
    """Return the daemon's answer, or what the pinned maps say, once `check` has nothing against it.

    A daemon that runs is found by its name alone: a thousand services take longer to read than to
    ask for, and what is wrong with the file is no reason not to show what runs.
    """
    name = balancer_name(path)
    if name is not None:
        try:
            answer: dict[str, Any] = _client(name).get(f"/{question}")
        except DaemonUnreachable:
            pass
        else:
            return answer
    from llb_core.config import load

    config = load(path)
    check(config)
    try:
        answer = client(config).get(f"/{question}")
    except DaemonUnreachable as error:
        from llb_core.cli import offline

        answer = getattr(offline, question)(config)
        remark(f"{error}; this is read from the pinned maps")
    return answer


def stream(path: Path, resource: str, **query: object) -> Iterator[bytes]:
    """Yield what the daemon tells bit by bit; DaemonUnreachable where none answers. As `ask`, it is
    found by its name alone."""
    name = balancer_name(path)
    if name is not None:
        try:
            yield from _client(name).stream(resource, **query)
        except DaemonUnreachable:
            pass
        else:
            return
    from llb_core.config import load

    yield from client(load(path)).stream(resource, **query)


def balancer_name(path: Path) -> str | None:
    """Return the name in a configuration's table `[loadbalancer]`, without reading the rest; None
    where it can't be told."""
    try:
        found = _TABLE.search(path.read_text())
        table = tomllib.loads(found[1]) if found else None
    except (OSError, ValueError):
        return None
    if table is None:
        return None
    name = table.get("name", "llb")
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None
