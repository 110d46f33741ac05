"""What a daemon takes orders for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llb_core.control import DaemonControl
from llb_core.errors import NotCarriedOut, NotThere
from llb_core.model import Order, OrderKind
from llb_core.orders import Orders, Selection
from llb_core.running import Running
from tests.api.observed import observed


class FailingCore:
    """Makes turns that come to nothing."""

    complaint = "a map is full"

    async def turn(self) -> None:
        """Fail."""


def test_an_order_before_the_first_turn_is_taken_for_what_is_installed(tmp_path: Path) -> None:
    (family,) = observed(services=1, backends=2).families
    orders = Orders(tmp_path / "orders.json")
    parts: dict[str, Any] = {
        "report": None,
        "map_syncs": {4: SimpleNamespace(installed=lambda: family.installed)},
        "orders": orders,
        "core": FailingCore(),
        "hub": None,
    }

    async def nothing() -> Any:
        raise AssertionError("nobody reloads here")

    control = DaemonControl(cast("Running", SimpleNamespace(**parts)), nothing, nothing)
    backend = family.installed.backends[1].endpoint
    drain = Order(OrderKind.DRAIN, by="alice")

    with pytest.raises(NotCarriedOut, match="a map is full"):
        asyncio.run(control.order(Selection.parse(str(backend)), drain))
    assert orders.under(OrderKind.DRAIN) == {("service-1", backend)}

    with pytest.raises(NotThere):
        asyncio.run(control.order(Selection.parse("10.9.9.9"), drain))
