"""Routes are asked for once, and again when they may have changed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from llb_core.known_routes import KnownRoutes
from llb_core.model import Address, Route

A, B, C = (ipaddress.ip_address(f"10.0.0.{n}") for n in (1, 2, 3))


class Kernel:
    """Has a route of its own to every address but those in `unreachable`."""

    def __init__(self) -> None:
        self.asked: list[set[Address]] = []
        self.interface = 2
        self.unreachable: set[Address] = set()

    def __call__(self, addresses: Iterable[Address]) -> dict[Address, Route]:
        wanted = set(addresses)
        self.asked.append(wanted)
        return {a: Route(self.interface, a, 1500) for a in wanted - self.unreachable}


def test_asks_for_new_addresses_only() -> None:
    kernel = Kernel()
    routes = KnownRoutes(kernel)
    assert routes({A, B}).keys() == {A, B}
    assert routes({A, B, C}).keys() == {A, B, C}
    assert routes({A}).keys() == {A}
    assert kernel.asked == [{A, B}, {C}]


def test_an_address_without_a_route_is_left_out_until_it_has_one() -> None:
    kernel = Kernel()
    kernel.unreachable = {A}
    routes = KnownRoutes(kernel)
    assert routes({A}) == {}
    assert not routes.refresh()
    kernel.unreachable = set()
    assert routes.refresh()
    assert routes({A}).keys() == {A}


def test_a_refresh_tells_of_a_route_that_changed() -> None:
    kernel = Kernel()
    routes = KnownRoutes(kernel)
    routes({A, B})
    kernel.interface = 3
    assert routes.refresh()
    assert routes({A, B})[B].interface == 3
    assert not routes.refresh()


def test_a_route_that_went_is_gone_after_a_refresh() -> None:
    kernel = Kernel()
    routes = KnownRoutes(kernel)
    routes({A, B})
    kernel.unreachable = {B}
    assert routes.refresh()
    assert routes({A, B}).keys() == {A}


def test_forgets_what_is_not_asked_for() -> None:
    kernel = Kernel()
    routes = KnownRoutes(kernel)
    routes({A, B})
    routes({A})
    routes.refresh()
    assert kernel.asked[-1] == {A}


def test_a_turn_beside_a_refresh_loses_nothing() -> None:
    kernel = Kernel()
    routes = KnownRoutes(kernel)
    routes({A, B})
    ask = kernel.__call__

    class Interrupted(Kernel):
        def __call__(self, addresses: Iterable[Address]) -> dict[Address, Route]:
            answer = ask(addresses)
            if not self.asked:
                self.asked.append(set())
                routes({A, C})  # a turn, between the refresh's question and its answer
            return answer

    routes._find = Interrupted()
    kernel.interface = 3
    assert routes.refresh()
    assert {a: r.interface for a, r in routes({A, C}).items()} == {A: 3, C: 3}
