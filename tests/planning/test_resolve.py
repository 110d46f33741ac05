"""What ought to be installed: existence, health and orders together."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from llb_core.model import (
    Backend,
    BackendMode,
    BackendOrders,
    Endpoint,
    Installed,
    InstalledBackend,
    InstalledService,
    Order,
    OrderKind,
    Route,
    Service,
    ServiceKey,
    Timeouts,
    Transport,
    WhenAllUnhealthy,
    WhenUnhealthy,
)
from llb_core.planning.resolve import merge, resolve

DRAINED = BackendOrders(traffic=Order(OrderKind.DRAIN))
DISABLED = BackendOrders(traffic=Order(OrderKind.DISABLE))
ACTIVE, DRAINING, ENDING = BackendMode.ACTIVE, BackendMode.DRAINING, BackendMode.ENDING
KEY = ServiceKey(Endpoint(ipaddress.ip_address("203.0.113.10"), 80), Transport.TCP)
WEB = Service("web", (KEY,), timeouts=Timeouts(udp=7))
A, B, C = (Endpoint(ipaddress.ip_address(f"10.0.0.{number}"), 80) for number in (1, 2, 3))


def modes(
    *backends: Backend,
    service: Service = WEB,
    health: dict[Endpoint, bool | None] | None = None,
    drained: tuple[Endpoint, ...] = (),
    orders: dict[Endpoint, BackendOrders] | None = None,
    installed: dict[Endpoint, BackendMode] | None = None,
) -> dict[Endpoint, BackendMode]:
    """Resolve one service and return the mode of each of its backends."""
    desired = resolve(
        [service],
        {service.name: backends},
        {(service.name, endpoint): state for endpoint, state in (health or {}).items()},
        {(service.name, endpoint): DRAINED for endpoint in drained}
        | {(service.name, endpoint): each for endpoint, each in (orders or {}).items()},
        {},
        _installed(installed or {}),
    )
    return {each.endpoint: each.mode for each in desired.services[KEY].backends}


def _installed(modes: dict[Endpoint, BackendMode]) -> Installed:
    return Installed(
        services={1: InstalledService(1, "web", KEY, Timeouts())},
        backends={
            slot: InstalledBackend(slot, 1, endpoint, mode)
            for slot, (endpoint, mode) in enumerate(modes.items(), start=1)
        },
    )


END = replace(WEB, when_unhealthy=WhenUnhealthy.END)
NOBODY = replace(WEB, when_all_unhealthy=WhenAllUnhealthy.NONE)
UNCHECKED = replace(WEB, is_checked=False)


@pytest.mark.parametrize(
    ("backend", "is_healthy", "is_drained", "service", "expected"),
    [
        (Backend(A), True, False, WEB, ACTIVE),
        (Backend(A), False, False, WEB, DRAINING),
        (Backend(A), False, False, END, ENDING),
        (Backend(A), True, True, WEB, DRAINING),
        (Backend(A), False, True, END, ENDING),
        (Backend(A), None, True, WEB, DRAINING),
        (Backend(A, weight=0), True, False, WEB, DRAINING),
        (Backend(A, draining=True), True, False, WEB, DRAINING),
        (Backend(A, draining=True), None, False, WEB, DRAINING),
        (Backend(A, healthy=False), True, False, WEB, DRAINING),
        (Backend(A, healthy=True), False, False, WEB, DRAINING),
        (Backend(A, healthy=False), None, False, replace(END, is_checked=False), ENDING),
        (Backend(A), None, False, UNCHECKED, ACTIVE),
    ],
)
def test_the_mode_of_one_beside_a_healthy_one(
    backend: Backend,
    is_healthy: bool | None,
    is_drained: bool,
    service: Service,
    expected: BackendMode,
) -> None:
    drained = (A,) if is_drained else ()
    got = modes(
        backend, Backend(B), service=service, health={A: is_healthy, B: True}, drained=drained
    )
    assert got == {A: expected, B: ACTIVE}


def test_a_new_backend_waits_for_its_first_check() -> None:
    assert modes(Backend(A), Backend(B), health={A: None, B: True}) == {B: ACTIVE}
    assert modes(Backend(A), Backend(B), health={B: True}) == {B: ACTIVE}


@pytest.mark.parametrize("mode", [ACTIVE, DRAINING, ENDING])
def test_an_installed_backend_stays_as_it_is_until_its_first_check(mode: BackendMode) -> None:
    got = modes(Backend(A), Backend(B), health={B: True}, installed={A: mode, B: ACTIVE})
    assert got == {A: mode, B: ACTIVE}


def test_a_retired_backend_that_comes_back_waits_as_a_new_one() -> None:
    assert modes(Backend(A), installed={A: BackendMode.RETIRED}) == {}
    got = modes(Backend(A), health={A: True}, installed={A: BackendMode.RETIRED})
    assert got == {A: ACTIVE}


def test_when_all_are_unhealthy_all_get_traffic() -> None:
    health: dict[Endpoint, bool | None] = {A: False, B: False}
    assert modes(Backend(A), Backend(B), health=health) == {A: ACTIVE, B: ACTIVE}
    assert modes(Backend(A), Backend(B), health=health, service=END) == {A: ACTIVE, B: ACTIVE}


def test_when_all_are_unhealthy_none_gets_traffic_where_the_service_says_so() -> None:
    health: dict[Endpoint, bool | None] = {A: False, B: False}
    assert modes(Backend(A), Backend(B), health=health, service=NOBODY) == {
        A: DRAINING,
        B: DRAINING,
    }


def test_a_drained_backend_gets_no_traffic_even_when_all_are_unhealthy() -> None:
    got = modes(Backend(A), Backend(B), Backend(C, weight=0), health={A: False, B: False, C: False})
    assert got == {A: ACTIVE, B: ACTIVE, C: DRAINING}
    assert modes(Backend(A), health={A: False}, drained=(A,)) == {A: DRAINING}


@pytest.mark.parametrize("is_healthy", [True, False, None])
@pytest.mark.parametrize("service", [WEB, END, UNCHECKED], ids=["keep", "end", "unchecked"])
def test_a_disabled_backend_ends_its_connections_however_it_is(
    is_healthy: bool | None, service: Service
) -> None:
    got = modes(
        Backend(A),
        Backend(B),
        service=service,
        health={A: is_healthy, B: True},
        orders={A: DISABLED},
    )
    assert got == {A: ENDING, B: ACTIVE}


def test_a_disabled_backend_gets_no_traffic_even_when_all_are_unhealthy() -> None:
    got = modes(Backend(A), Backend(B), health={A: False, B: False}, orders={A: DISABLED})
    assert got == {A: ENDING, B: ACTIVE}


@pytest.mark.parametrize(("stated", "ordered"), [(1, 5), (5, 1), (0, 3)])
def test_an_ordered_weight_counts_in_the_place_of_the_providers(stated: int, ordered: int) -> None:
    orders = {("web", A): BackendOrders(weight=Order(OrderKind.WEIGHT, weight=ordered))}
    desired = resolve(
        [UNCHECKED], {"web": [Backend(A, stated), Backend(B, 2)]}, {}, orders, {}, Installed()
    )
    assert [(b.endpoint, b.weight, b.mode) for b in desired.services[KEY].backends] == [
        (A, ordered, ACTIVE),
        (B, 2, ACTIVE),
    ]


def test_a_weight_of_0_by_order_drains() -> None:
    none = BackendOrders(weight=Order(OrderKind.WEIGHT, weight=0))
    assert modes(Backend(A), Backend(B), health={A: True, B: True}, orders={A: none}) == {
        A: DRAINING,
        B: ACTIVE,
    }


def test_a_service_with_drained_backends_only_has_none_active() -> None:
    assert modes(Backend(A), health={A: True}, drained=(A,)) == {A: DRAINING}


def test_the_first_verdict_after_a_start_does_not_draw_all_traffic_to_a_dead_backend() -> None:
    assert modes(Backend(A), Backend(B), health={A: False}) == {A: DRAINING}


def test_a_new_backend_does_not_take_the_traffic_from_those_that_are_all_unhealthy() -> None:
    got = modes(Backend(A), Backend(B), health={A: False}, installed={A: ACTIVE})
    assert got == {A: ACTIVE}


def test_another_service_keeps_what_it_says() -> None:
    other = Service(
        "dns", (ServiceKey(Endpoint(KEY.endpoint.address, 53), Transport.UDP),), is_checked=False
    )
    desired = resolve(
        [WEB, other],
        {"web": [Backend(A)], "dns": [Backend(A), Backend(B)]},
        {("web", A): False},
        {("web", B): DRAINED},
        {},
        Installed(),
    )
    assert {each.mode for each in desired.services[other.keys[0]].backends} == {ACTIVE}


def test_carries_name_timeouts_weights_and_routes() -> None:
    route = Route(3, A.address, 1500)
    desired = resolve(
        [UNCHECKED],
        {"web": [Backend(B, 5), Backend(A, 3)]},
        {},
        {},
        {A.address: route},
        Installed(),
    )
    service = desired.services[KEY]
    assert (service.name, service.key, service.timeouts) == ("web", KEY, Timeouts(udp=7))
    assert [(b.endpoint, b.weight, b.route) for b in service.backends] == [
        (A, 3, route),
        (B, 5, None),
    ]
    assert desired.routes == {A.address: route}


def test_each_family_is_resolved_by_itself() -> None:
    key6 = ServiceKey(Endpoint(ipaddress.ip_address("2001:db8::10"), 80), Transport.TCP)
    a6 = Endpoint(ipaddress.ip_address("2001:db8::1"), 80)
    both = Service("web", (KEY, key6), is_checked=False)
    registered = {"web": [Backend(A), Backend(a6)]}
    for family, key, endpoint in [(4, KEY, A), (6, key6, a6)]:
        desired = resolve([both], registered, {}, {}, {}, Installed(), family=family)
        assert list(desired.services) == [key]
        assert [each.endpoint for each in desired.services[key].backends] == [endpoint]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Backend(A, 1), Backend(A, 9), Backend(A, 1)),
        (Backend(A), Backend(A, draining=True), Backend(A, draining=True)),
        (Backend(A, healthy=True), Backend(A), Backend(A, healthy=True)),
        (Backend(A, healthy=True), Backend(A, healthy=False), Backend(A, healthy=False)),
    ],
)
def test_the_same_backend_twice_is_one(first: Backend, second: Backend, expected: Backend) -> None:
    assert merge(first, second) == expected
