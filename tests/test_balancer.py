"""The load balancer: register, keep, commit, on maps in memory."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from llb_core.balancer import LoadBalancer
from llb_core.errors import MapError
from llb_core.health.state import Health, HealthState
from llb_core.model import (
    Address,
    Backend,
    BackendMode,
    BackendOrders,
    Endpoint,
    Order,
    OrderKind,
    Route,
    Scheduler,
    Service,
    ServiceKey,
    Transport,
    WhenUnhealthy,
)
from llb_core.planning import capacity
from llb_core.planning.turns import fill_table
from llb_core.testing import CutOffError, MemoryMaps

VIP = ipaddress.ip_address("203.0.113.10")
WEB = Service("web", (ServiceKey(Endpoint(VIP, 80), Transport.TCP),))
DNS = Service("dns", (ServiceKey(Endpoint(VIP, 53), Transport.UDP),), is_checked=False)
A, B, C = (Endpoint(ipaddress.ip_address(f"10.0.0.{number}"), 80) for number in (1, 2, 3))
DRAINED = BackendOrders(traffic=Order(OrderKind.DRAIN))
HEALTHY = HealthState(Health.HEALTHY)
UNHEALTHY = HealthState(Health.UNHEALTHY, "connection refused")


class World:
    """A load balancer on maps in memory, with the health, orders and routes that a test sets."""

    def __init__(self, *services: Service, maps: MemoryMaps | None = None) -> None:
        self.maps = maps or MemoryMaps()
        self.health: dict[tuple[str, Endpoint], HealthState] = {}
        self.orders: dict[tuple[str, Endpoint], BackendOrders] = {}
        self.routes: dict[Address, Route] = {}
        self.asked_routes: set[Address] = set()
        self.llb = LoadBalancer(
            {4: self.maps},
            services or (WEB,),
            health=self._health,
            orders=lambda: dict(self.orders),
            routes=self._routes,
        )

    def _routes(self, addresses: Iterable[Address]) -> dict[Address, Route]:
        self.asked_routes = set(addresses)
        return dict(self.routes)

    def _health(self) -> dict[str, dict[Endpoint, HealthState]]:
        states: dict[str, dict[Endpoint, HealthState]] = {}
        for (service, endpoint), state in self.health.items():
            states.setdefault(service, {})[endpoint] = state
        return states

    def register(self, *endpoints: Endpoint, service: str = "web") -> None:
        for endpoint in endpoints:
            self.llb.register_backend(service, Backend(endpoint))

    def turn(self, *endpoints: Endpoint, service: str = "web") -> tuple[str, ...]:
        """Register these, commit, and return what was said."""
        self.register(*endpoints, service=service)
        return self.llb.commit().sentences

    def all_healthy(self, *endpoints: Endpoint) -> None:
        self.health |= {("web", endpoint): HEALTHY for endpoint in endpoints}

    def modes(self) -> dict[Endpoint, BackendMode]:
        return {each.endpoint: each.mode for each in self.maps.installed().backends.values()}

    def backends_of(self, service: str) -> set[Endpoint]:
        installed = self.maps.installed()
        return {
            each.endpoint
            for each in installed.backends.values()
            if installed.services[each.service_slot].name == service
        }

    def shares(self) -> dict[Endpoint, int]:
        """Return how many places of the first service's table lead to each backend."""
        installed = self.maps.installed()
        places = np.bincount(installed.services[1].table)
        return {
            installed.backends[slot].endpoint: int(places[slot])
            for slot in np.flatnonzero(places).tolist()
        }


@pytest.fixture
def world() -> World:
    made = World()
    made.all_healthy(A, B, C)
    return made


def test_installs_what_is_registered(world: World) -> None:
    world.turn(A, B)
    assert set(world.shares()) == {A, B}
    assert world.llb.plan().changes != (), "nothing registered since: all would go"


def test_what_is_not_registered_again_is_deregistered(world: World) -> None:
    world.turn(A, B)
    world.turn(B)
    assert world.modes() == {A: BackendMode.RETIRED, B: BackendMode.ACTIVE}
    assert set(world.shares()) == {B}


def test_a_turn_without_a_change_changes_and_says_nothing(world: World) -> None:
    world.turn(A, B)
    world.register(A, B)
    report = world.llb.commit()
    assert (report.plan.changes, report.sentences) == ((), ())


def test_the_same_backend_from_two_providers_is_one(world: World) -> None:
    world.turn(A, A, B)
    world.llb.register_backend("web", Backend(A))
    world.llb.register_backend("web", Backend(A, draining=True))
    world.turn(B)
    assert world.modes() == {A: BackendMode.DRAINING, B: BackendMode.ACTIVE}


def test_says_once_where_providers_differ_about_a_weight(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def turn(*weights: int) -> object:
        for weight in weights:
            world.llb.register_backend("web", Backend(A, weight))
        return world.llb.commit().differing

    assert turn(3, 3) == {}
    assert caplog.messages == []
    assert turn(3, 5) == {"web": {A: [3, 5]}}
    assert turn(3, 5) == {"web": {A: [3, 5]}}
    (said,) = caplog.messages
    assert "web: providers differ about the weight of 10.0.0.1:80 (3 and 5): what the first" in said
    assert turn(3, 7) == {"web": {A: [3, 7]}}, "though what counts is the same"
    assert turn(5) == {}
    turn(3, 7)
    assert len(caplog.messages) == 3, "it had gone in between"


def test_says_what_stands_behind_a_service(world: World) -> None:
    assert world.turn(A, B, C) == ("web: 3 backends",)
    world.health["web", A] = UNHEALTHY
    world.orders = {("web", B): DRAINED}
    assert world.turn(A, B, C) == (
        "web: 3 backends (10.0.0.1:80 unhealthy: connection refused; 10.0.0.2:80 draining)",
    )
    world.health["web", C] = UNHEALTHY
    assert world.turn(C) == (
        ("web: 1 backend (10.0.0.3:80 unhealthy: connection refused, gets traffic all the same)"),
    )
    assert world.turn() == ("web: no backends",)


def test_a_sentence_names_some_backends_and_counts_the_others() -> None:
    world = World()
    many = [Endpoint(A.address + number, 80) for number in range(8)]
    (sentence,) = world.turn(*many)
    assert sentence.startswith("web: 8 backends (10.0.0.1:80 waits for its first check; ")
    assert sentence.endswith("10.0.0.5:80 waits for its first check; and 3 more)")


def test_another_reason_for_the_same_is_no_news(world: World) -> None:
    world.health["web", A] = UNHEALTHY
    world.turn(A, B)
    world.health["web", A] = HealthState(Health.UNHEALTHY, "no answer within 0.5 s")
    assert world.turn(A, B) == ()


def test_reports_all_registered_backends_for_whoever_checks_them() -> None:
    world = World(WEB, DNS)
    world.register(C, service="dns")
    world.register(A)
    report = world.llb.commit()
    assert report.registered == {"web": (Backend(A),), "dns": (Backend(C),)}
    web, dns = report.services
    assert [(b.endpoint, b.mode, b.is_healthy) for b in web.backends] == [(A, None, None)]
    assert [(b.endpoint, b.mode) for b in dns.backends] == [(C, BackendMode.ACTIVE)]


def test_asks_for_the_routes_of_retired_backends_too(world: World) -> None:
    route = Route(3, A.address, 1500)
    world.routes = {A.address: route}
    world.turn(A, B)
    world.routes = {A.address: Route(4, A.address, 9000)}
    world.turn(B)
    assert world.asked_routes == {A.address, B.address}
    (retired,) = (b for b in world.maps.installed().backends.values() if b.endpoint == A)
    assert retired.route == Route(4, A.address, 9000)


class TestKeep:
    """A provider that has never answered, after a restart of the daemon."""

    @pytest.fixture
    def restarted(self, world: World) -> World:
        """A new daemon on maps that hold A and B, of weight 3 and 1, and C drained."""
        world.orders = {("web", C): DRAINED}
        world.llb.register_backend("web", Backend(A, weight=3))
        world.turn(B, C)
        return World(maps=world.maps)

    def test_keeps_what_is_installed(self, restarted: World) -> None:
        before = restarted.maps.installed()
        for _ in range(2):
            restarted.llb.keep("web")
            assert restarted.llb.commit().plan.changes == ()
        assert restarted.maps.installed() == before

    def test_says_so_and_has_the_backends_checked(self, restarted: World) -> None:
        restarted.llb.keep("web")
        report = restarted.llb.commit()
        assert {each.endpoint for each in report.registered["web"]} == {A, B, C}
        assert report.services[0].is_kept
        assert report.sentences == (
            (
                "web: 3 backends, as installed before, since a provider gave no good answer yet "
                "(10.0.0.3:80 draining)"
            ),
        )

    def test_takes_an_unhealthy_one_out_and_puts_it_back(self, restarted: World) -> None:
        before = restarted.shares()
        restarted.health["web", A] = UNHEALTHY
        restarted.llb.keep("web")
        restarted.llb.commit()
        assert set(restarted.shares()) == {B}
        restarted.health["web", A] = HEALTHY
        restarted.llb.keep("web")
        restarted.llb.commit()
        assert restarted.shares() == before

    def test_adds_what_another_provider_of_the_service_says(self, restarted: World) -> None:
        new = Endpoint(ipaddress.ip_address("10.0.0.9"), 80)
        restarted.health["web", new] = HEALTHY
        restarted.llb.keep("web")
        restarted.turn(new)
        assert set(restarted.shares()) == {A, B, new}

    def test_ends_when_the_provider_answers(self, restarted: World) -> None:
        restarted.llb.keep("web")
        restarted.llb.commit()
        restarted.turn(B)
        assert set(restarted.shares()) == {B}
        restarted.llb.keep("web")
        restarted.llb.commit()
        assert set(restarted.shares()) == {B}, "what was deregistered does not come back"

    def test_holds_over_a_new_address_of_the_service(self, restarted: World) -> None:
        moved = Service("web", (ServiceKey(Endpoint(VIP + 1, 80), Transport.TCP),))
        restarted.llb.serve([moved])
        restarted.all_healthy(A, B, C)
        restarted.llb.keep("web")
        restarted.llb.commit()
        by_key = {each.key: each for each in restarted.maps.installed().services.values()}
        assert by_key[moved.keys[0]].table.size
        assert not by_key[WEB.keys[0]].is_reachable

    def test_a_service_that_was_never_installed_gets_no_backends(self) -> None:
        world = World()
        world.llb.keep("web")
        world.llb.commit()
        assert world.modes() == {}


def test_an_unhealthy_backends_connections_end_where_the_service_says_so() -> None:
    world = World(Service("web", WEB.keys, when_unhealthy=WhenUnhealthy.END))
    world.all_healthy(A, B)
    world.turn(A, B)
    world.health["web", A] = UNHEALTHY
    world.turn(A, B)
    assert world.modes()[A] is BackendMode.ENDING


def test_a_slot_is_freed_when_it_is_idle(world: World) -> None:
    world.turn(A, B)
    world.turn(B)
    world.llb.note_idle([1])
    world.turn(B)
    assert world.modes() == {B: BackendMode.ACTIVE}


def test_idle_counts_for_one_commit_only(world: World) -> None:
    world.turn(A, B)
    world.llb.note_idle([1])
    world.turn(A, B)
    world.turn(B)
    world.turn(B)
    assert world.modes()[A] is BackendMode.RETIRED


def test_a_service_that_is_served_no_longer_is_withdrawn(world: World) -> None:
    world.turn(A)
    world.llb.serve([DNS])
    assert world.turn(A, service="dns") == ("dns: 1 backend", "web: withdrawn")
    services = {each.name: each.is_reachable for each in world.maps.installed().services.values()}
    assert services == {"web": False, "dns": True}


def test_a_plan_shows_what_a_commit_would_do_and_does_nothing(world: World) -> None:
    world.register(A)
    plan = world.llb.plan()
    assert world.maps.applied == []
    world.turn(A)
    assert [str(change) for change in world.maps.applied] == str(plan).splitlines()


def test_a_plan_of_two_families_names_the_family_of_each_slot() -> None:
    vips = VIP, ipaddress.ip_address("2001:db8:f::10")
    keys = tuple(ServiceKey(Endpoint(vip, 53), Transport.UDP) for vip in vips)
    maps = {4: MemoryMaps(), 6: MemoryMaps()}
    llb = LoadBalancer(maps, [Service("dns", keys, is_checked=False)])
    for address in ("10.0.0.1", "2001:db8::1"):
        llb.register_backend("dns", Backend(Endpoint(ipaddress.ip_address(address), 53)))
    lines = list(llb.commit().plan.lines)
    assert "IPv4: put table of service dns: 16381 places" in lines
    assert "IPv6: put table of service dns: 16381 places" in lines
    assert len(lines) == len(set(lines)) == 8


def test_a_commit_that_fails_is_finished_by_the_next(world: World) -> None:
    world.maps.cut_after = 2
    with pytest.raises(CutOffError):
        world.turn(A, B)
    world.maps.cut_after = None
    assert world.turn(A, B) == ("web: 2 backends",)
    assert set(world.shares()) == {A, B}


def test_a_draft_does_not_outlive_a_commit_that_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise MapError("map backends: can't read")

    with monkeypatch.context() as patch:
        patch.setattr(world.maps, "installed", fail)
        with pytest.raises(MapError):
            world.turn(A)
    world.turn(B)
    assert set(world.modes()) == {B}


def test_a_table_is_filled_only_when_its_backends_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def fill(backends: Any, size: int, scheduler: Scheduler) -> Any:
        built.append(len(backends))
        return fill_table(backends, size, scheduler)

    monkeypatch.setattr("llb_core.tables.fill_table", fill)
    for endpoints in [(A, B), (A, B), (A, B, C), (A, B, C)]:
        world.turn(*endpoints)
    assert built == [2, 3]


def test_backends_that_find_no_room_are_refused_whole_and_the_other_services_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capacity, "BACKEND_SLOTS", 4)
    caplog.set_level("INFO")
    world = World(WEB, DNS)
    world.all_healthy(A, B, C)
    world.turn(A)
    world.register(A, B, C)
    world.register(A, B, service="dns")
    world.llb.commit()

    assert world.backends_of("web") == {A, B, C}
    assert world.backends_of("dns") == set()
    assert (
        "dns: what is registered stays as it was: 2 new backends of IPv4 find no room: all "
        "services together may have 4, and 1 are left"
    ) in caplog.text

    world.register(A, B, C)
    world.register(B, service="dns")
    world.llb.commit()
    assert world.backends_of("dns") == {B}
    assert "dns: its backends find room again" in caplog.text


def test_what_was_installed_of_a_refused_service_keeps_its_traffic(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capacity, "BACKEND_SLOTS", 2)
    maps = MemoryMaps()
    first = World(DNS, maps=maps)
    first.turn(A, B, service="dns")

    for world in (first, World(DNS, maps=maps)):
        world.turn(A, C, service="dns")
        world.turn(A, C, service="dns")
        assert set(world.shares()) == {A, B}, "as it was, whoever installed it"
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 2, "each told it once"

    first.turn(A, service="dns")
    first.llb.note_idle({2})
    first.turn(A, service="dns")
    first.turn(A, C, service="dns")
    assert set(first.shares()) == {A, C}
