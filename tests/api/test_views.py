"""What the daemon says of services and backends."""

from __future__ import annotations

from dataclasses import replace

from llb_core.api.service_views import service_views
from llb_core.api.views import backend_views
from llb_core.model import BackendMode, BackendOrders, Order, OrderKind
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


def test_a_service_counts_what_the_maps_alone_have_but_not_what_is_retired() -> None:
    seen = observed(services=1, backends=4)
    assert seen.services is not None
    (service,) = seen.services
    family = seen.families[0]
    backends = dict(family.installed.backends)
    backends[3] = replace(backends[3], mode=BackendMode.DRAINING)
    backends[4] = replace(backends[4], mode=BackendMode.RETIRED)
    family = replace(family, installed=replace(family.installed, backends=backends))
    services = (replace(service, backends=service.backends[:2]),)

    (view,) = service_views(replace(seen, families=[family], services=services))

    assert (view["backends"], view["active"]) == (3, 2)
    assert view["connections"] == 1 + 2 + 3 + 4, "the retired one's go on"


def test_a_service_has_no_connections_where_nothing_is_installed_and_unknown_ones_uncounted() -> (
    None
):
    seen = observed(services=1, backends=1)
    (family,) = seen.families
    nothing = replace(family, installed=replace(family.installed, backends={}))
    uncounted = replace(family, connections=None)

    (waiting,) = service_views(replace(seen, families=[nothing]))
    (unknown,) = service_views(replace(seen, families=[uncounted]))

    assert (waiting["connections"], unknown["connections"]) == (0, None)


def test_an_address_is_unserved_without_a_backend_of_its_family_that_may_be_healthy() -> None:
    seen = observed(services=1, backends=1)
    assert seen.services is not None
    (service,) = seen.services
    (backend,) = service.backends
    ill = replace(service, backends=(replace(backend, is_healthy=False),))
    other_family = replace(service, keys=observed(1, 1, 6).services[0].keys)

    (served,) = service_views(seen)
    (down,) = service_views(replace(seen, services=(ill,)))
    (other,) = service_views(replace(seen, services=(other_family,)))

    assert (served["unserved"], down["unserved"]) == ([], ["203.0.113.2:80/tcp"])
    assert other["unserved"] == ["[2001:db8::2]:80/tcp"]
