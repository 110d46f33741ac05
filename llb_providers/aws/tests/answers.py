"""Write an answer of the provider the short way, to compare."""

from __future__ import annotations

import ipaddress
from typing import Any

from llb_core import Backend, Endpoint


def backend(address: str, port: int = 8080, **more: Any) -> Backend:
    """Return a backend."""
    return Backend(Endpoint(ipaddress.ip_address(address), port), **more)


def in_order(backends: Any) -> list[Backend]:
    """Return backends by endpoint."""
    return sorted(backends, key=lambda each: each.endpoint)
