"""What the daemon says of services and backends."""

from __future__ import annotations

from dataclasses import replace

from llb_core.api.views import backend_views
from llb_core.model import BackendOrders, Order, OrderKind
from tests.api.observed import observed


def test_an_order_is_shown_from_when_it_stands_though_no_turn_has_carried_it_out() -> None:
    seen = observed(services=1, backends=2)
    assert seen.services is not None
    drained = seen.services[0].backends[0].endpoint
    orders = {("service-1", drained): BackendOrders(traffic=Order(OrderKind.DRAIN, by="alice"))}

    first, second = backend_views(replace(seen, orders=orders))

    assert (first["mode"], second["mode"]) == ("active", "active"), "as of the last turn"
    assert [(each["order"], each["by"]) for each in first["orders"]] == [("drain", "alice")]
    assert second["orders"] == []


def test_an_order_is_shown_of_a_backend_of_which_only_the_maps_tell() -> None:
    """A daemon whose first turns fail knows no other."""
    seen = replace(observed(services=1, backends=2), services=())
    drained = seen.families[0].installed.backends[1].endpoint
    orders = {("service-1", drained): BackendOrders(traffic=Order(OrderKind.DRAIN, by="alice"))}

    first, second = backend_views(replace(seen, orders=orders))

    assert [(each["order"], each["by"]) for each in first["orders"]] == [("drain", "alice")]
    assert second["orders"] == []
