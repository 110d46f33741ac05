"""Ask the daemon; where none answers, read the pinned maps, and say so."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llb_core.cli.show import remark
from llb_core.errors import ConfigurationError, DaemonUnreachable, LLBError
from llb_core.run_folder import RUN, RunFolder

if TYPE_CHECKING:
    from llb_core.api.client import Client
    from llb_core.config import Config

Question = Literal["status", "backends", "drops"]

TIMEOUT = 2.0
"""Seconds that a daemon has to say which file it runs with."""

READ_TIMEOUT = 10.0
"""Seconds until the daemon begins to answer what it is asked; the maps say most of it, too."""

TABLES_TIMEOUT = 30.0
"""... where it has the tables of connections read first: two at once, at low priority."""

ORDER_TIMEOUT = 120.0
"""Seconds that the daemon has to carry out what it is told: connections may be found and reset
among millions, and a reload waits for providers, and for turns of many changes."""

_TABLE = re.compile(r"^\[loadbalancer\][^\n]*\n(.*?)(?=^\s*\[|\Z)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")


def client(path: Path, *, timeout: float = READ_TIMEOUT) -> Client:
    """Return the way to the daemon of this configuration, which is found by its name alone.

    A thousand services take longer to read than to ask for; and what is wrong with the file is no
    reason not to show what runs, or to refuse an order.
    """
    from llb_core.api.client import Client

    return Client(RunFolder(balancer_name(path)).socket, timeout=timeout, remark=remark)


def ask(
    path: Path, question: Question, check: Callable[[Config], None] = lambda _: None
) -> dict[str, Any]:
    """Return the daemon's answer, or what the pinned maps say, once `check` has nothing against
    it."""
    try:
        answer: dict[str, Any] = client(path).get(f"/{question}")
    except DaemonUnreachable as error:
        from llb_core.config import load

        config = load(path)
        check(config)
        from llb_core.cli import offline

        answer = getattr(offline, question)(config)
        remark(f"{error}; this is read from the pinned maps")
    return answer


def balancer_name(path: Path) -> str:
    """Return the name of a configuration's balancer, whatever else is wrong with the file: as its
    table `[loadbalancer]` says, or else that of the daemon which runs with it.

    Raises ConfigurationError with what is wrong where it can't be told.
    """
    name = _name_in(path)
    if name is not None:
        return name
    from llb_core.config import load

    try:
        return load(path).loadbalancer.name
    except ConfigurationError:
        name = _name_of_daemon_with(path)
        if name is None:
            raise
        return name


def _name_in(path: Path) -> str | None:
    """Return the name in the table `[loadbalancer]`, without reading the rest; None where that is
    not plain."""
    try:
        found = _TABLE.search(path.read_text())
        table = tomllib.loads(found[1]) if found else None
    except (OSError, ValueError):
        return None
    if table is None:
        return None
    if "name" not in table and difflib.get_close_matches("name", table, n=1):
        return None  # Misspelt: the default is another balancer's.
    name = table.get("name", "llb")
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def _name_of_daemon_with(path: Path) -> str | None:
    from llb_core.api.client import Client

    for socket in sorted(RUN.glob("*.sock")):
        with suppress(LLBError):
            status = Client(socket, timeout=TIMEOUT).get("/status")
            if Path(status["config"]) == path.absolute():
                return str(status["name"])
    return None
