"""Ask the daemon; where none answers, read the pinned maps, and say so."""

from __future__ import annotations

from typing import Any, Literal

from llb_core.api.client import Client
from llb_core.cli.show import remark
from llb_core.config import Config
from llb_core.errors import DaemonUnreachable
from llb_core.run_folder import RunFolder


def client(config: Config, *, timeout: float = 30.0) -> Client:
    """Return the way to the daemon of this configuration."""
    return Client(RunFolder(config.loadbalancer.name).socket, timeout=timeout)


def ask(config: Config, question: Literal["status", "backends"]) -> dict[str, Any]:
    """Return the daemon's answer, or what the pinned maps say."""
    try:
        answer: dict[str, Any] = client(config).get(f"/{question}")
    except DaemonUnreachable as error:
        from llb_core.cli import offline

        answer = getattr(offline, question)(config)
        remark(f"{error}; this is read from the pinned maps")
    return answer
