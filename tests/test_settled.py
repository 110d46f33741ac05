"""A turn looks only at what has changed, and comes to what a look at everything would."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from llb_core.balancer import LoadBalancer
from llb_core.drafts import remembered
from llb_core.health.state import Health, HealthState
from llb_core.model import (
    Access,
    Address,
    Backend,
    BackendOrders,
    Endpoint,
    Installed,
    Order,
    OrderKind,
    Route,
    Scheduler,
    Service,
    ServiceKey,
    Ticks,
    Transport,
    WhenAllUnhealthy,
    WhenUnhealthy,
)
from llb_core.planning import maglev
from llb_core.planning.changes import Plan, PutBackend, PutTable, WriteTable
from llb_core.planning.mirror import Mirror
from llb_core.planning.parts import split
from llb_core.planning.plan import make_plan
from llb_core.planning.resolve import merge, resolve
from llb_core.report import ServiceStatus, gist, sentence, service_status
from llb_core.rules import Rules
from llb_core.testing import CutOffError, MemoryMaps

VIPS = ipaddress.ip_address("203.0.113.10"), ipaddress.ip_address("2001:db8:f::10")
HOSTS = [ipaddress.ip_address(f"10.0.0.{n}") for n in range(1, 6)]
HOSTS_6 = [ipaddress.ip_address(f"2001:db8::{n}") for n in range(1, 4)]
ENDPOINTS = [Endpoint(host, 80) for host in (*HOSTS, *HOSTS_6)]
ROUTES = [None, Route(2, HOSTS[0], 1500), Route(3, HOSTS[1], 9000)]
DENIED = (
    Rules.of([], [ipaddress.ip_network("192.0.2.0/24")], 4),
    Rules.of([], [ipaddress.ip_network("2001:db8:9::/48")], 6),
)


def keys(port: int, transport: Transport = Transport.TCP) -> tuple[ServiceKey, ...]:
    return tuple(ServiceKey(Endpoint(vip, port), transport) for vip in VIPS)


WEB = Service("web", keys(80), when_all_unhealthy=WhenAllUnhealthy.ALL)
KINDS = {
    "web": [
        WEB,
        replace(WEB, when_all_unhealthy=WhenAllUnhealthy.NONE),
        replace(WEB, slow_start=20.0),
        replace(WEB, keys=(WEB.keys[0],)),
    ],
    "api": [
        Service("api", keys(443)[:1], Scheduler.ROUND_ROBIN, when_unhealthy=WhenUnhealthy.END),
        Service("api", keys(80)[1:], access=Access.DENY, rules=DENIED),  # One that web may have.
    ],
    "dns": [
        Service("dns", keys(53, Transport.UDP), is_checked=False),
        Service("dns", keys(53, Transport.UDP), is_checked=False, access=Access.DENY, rules=DENIED),
    ],
}
NAMES = sorted(KINDS)

endpoints = st.sampled_from(ENDPOINTS)
backends = st.builds(
    Backend, endpoints, st.integers(0, 2), st.booleans(), st.sampled_from([None, None, True, False])
)
states = st.builds(
    HealthState,
    st.sampled_from(Health),
    st.sampled_from(["", "refused"]),
    successes=st.integers(0, 1),
)
given_orders = st.builds(
    BackendOrders,
    st.sampled_from([None, Order(OrderKind.DRAIN), Order(OrderKind.DISABLE, by="me")]),
    st.sampled_from([None, Order(OrderKind.WEIGHT, weight=0), Order(OrderKind.WEIGHT, weight=2)]),
)


class Maps(MemoryMaps):
    """Maps in memory that somebody may flush, and that are read anew after that."""

    def read_anew(self) -> None:
        known = self.installed()
        self._mirror = Mirror(
            Installed(
                {slot: replace(each) for slot, each in known.services.items()},
                {slot: replace(each) for slot, each in known.backends.items()},
                dict(known.rules),
            )
        )

    def flush(self) -> None:
        self._mirror = Mirror()


class Turns(RuleBasedStateMachine):
    """A balancer, and beside it the plan and the status of each turn worked out from nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = {4: Maps(), 6: Maps()}
        self.open = {4: self.maps[4]}
        self.services = {"web": WEB, "dns": KINDS["dns"][0]}
        self.answers: dict[str, list[Backend]] = {}
        self.health: dict[tuple[str, Endpoint], HealthState] = {}
        self.told: dict[str, dict[Endpoint, HealthState]] = {}
        self.orders: dict[tuple[str, Endpoint], BackendOrders] = {}
        self.routes: dict[Address, Route] = {}
        self.idle: dict[int, frozenset[int]] = {}
        self.now = 1
        self.kept: dict[str, tuple[Backend, ...]] = {}
        self.said: dict[str, object] = {}
        self.llb = LoadBalancer(
            self.open,
            self.services.values(),
            health=self.states,
            orders=lambda: self.orders,
            routes=lambda wanted: {a: self.routes[a] for a in wanted if a in self.routes},
            clock=lambda: Ticks(self.now, 1),
        )

    @rule(name=st.sampled_from(NAMES), answer=st.lists(backends, max_size=6))
    def a_provider_answers(self, name: str, answer: list[Backend]) -> None:
        self.answers[name] = answer

    @rule(name=st.sampled_from(NAMES), endpoint=endpoints)
    def one_backend_comes_or_goes(self, name: str, endpoint: Endpoint) -> None:
        before = self.answers.setdefault(name, [])
        left = [each for each in before if each.endpoint != endpoint]
        self.answers[name] = left if len(left) < len(before) else [*before, Backend(endpoint)]

    @rule(name=st.sampled_from(NAMES))
    def the_daemon_has_not_heard_from_a_provider(self, name: str) -> None:
        self.answers.pop(name, None)

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 3))
    def a_reload_puts_a_service(self, name: str, number: int) -> None:
        kinds = KINDS[name]
        service = replace(kinds[number % len(kinds)])  # Another object, as a reload makes it.
        others = {n: each for n, each in self.services.items() if n != name}
        if not any(key in each.keys for each in others.values() for key in service.keys):
            self.services[name] = service
            self.llb.serve(self.services.values())

    @rule(name=st.sampled_from(NAMES))
    def a_reload_removes_a_service(self, name: str) -> None:
        self.services.pop(name, None)
        self.llb.serve(self.services.values())

    @precondition(lambda self: 6 not in self.open)
    @rule()
    def a_reload_opens_the_maps_of_ipv6(self) -> None:
        self.open[6] = self.maps[6]

    @rule(name=st.sampled_from(NAMES), endpoint=endpoints, state=st.none() | states)
    def health_changes(self, name: str, endpoint: Endpoint, state: HealthState | None) -> None:
        _set(self.health, (name, endpoint), state)

    @rule(state=states)
    def all_is_checked(self, state: HealthState) -> None:
        self.health = {(name, endpoint): state for name in NAMES for endpoint in ENDPOINTS}

    @rule(name=st.sampled_from(NAMES), endpoint=endpoints, order=st.none() | given_orders)
    def an_operator_orders(
        self, name: str, endpoint: Endpoint, order: BackendOrders | None
    ) -> None:
        _set(self.orders, (name, endpoint), order)

    @rule(host=st.sampled_from([*HOSTS, *HOSTS_6]), route=st.sampled_from(ROUTES))
    def a_route_changes(self, host: Address, route: Route | None) -> None:
        _set(self.routes, host, route)

    @rule(seconds=st.sampled_from([1, 30]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(family=st.sampled_from([4, 6]), slots=st.frozensets(st.integers(1, 12)))
    def slots_are_found_idle(self, family: int, slots: frozenset[int]) -> None:
        self.idle[family] = slots
        self.llb.note_idle(slots, family=family)

    @rule(family=st.sampled_from([4, 6]))
    def the_maps_are_read_anew(self, family: int) -> None:
        self.maps[family].read_anew()

    @rule(family=st.sampled_from([4, 6]))
    def the_maps_are_flushed(self, family: int) -> None:
        self.maps[family].flush()

    @rule(after=st.integers(0, 4))
    def a_turn_is_cut(self, after: int) -> None:
        """Let a turn fail halfway; the next one goes on from there."""
        maps = self.maps[4]
        maps.cut_after = len(maps.applied) + after
        try:
            self.a_turn_is_made()
        except CutOffError:
            self.idle = {}
        finally:
            maps.cut_after = None

    @rule()
    def what_would_be_done_is_shown(self) -> None:
        # What is installed of a silent provider's service is remembered from then on.
        self.registered({number: maps.installed() for number, maps in self.open.items()})
        self.register()
        shown = self.llb.plan()
        self.register()
        assert [str(each) for each in self.llb.plan()] == [str(each) for each in shown]

    @rule()
    def a_turn_is_made(self) -> None:
        before = {number: maps.installed() for number, maps in self.open.items()}
        registered = self.registered(before)
        plans, statuses = self.from_nothing(registered, before)
        self.register()
        report = self.llb.commit()
        expected = [change for plan in plans.values() for change in plan]
        assert [_whole(each) for each in report.plan] == [_whole(each) for each in expected]
        assert report.services == statuses
        assert report.registered == registered
        assert report.sentences == self.news(statuses)
        for number, plan in plans.items():
            _assert_only_changes_are_written(plan, before[number])
        self.idle = {}

    @rule()
    def turns_are_made_until_nothing_changes(self) -> None:
        for _ in range(4):
            self.a_turn_is_made()
        if not self.is_starting():
            self.register()
            assert not self.llb.plan().changes

    def is_starting(self) -> bool:
        return any(b.started for m in self.maps.values() for b in m.installed().backends.values())

    def register(self) -> None:
        for name in self.services:
            if name not in self.answers:
                self.llb.keep(name)
                continue
            if self.llb.register_again(name, self.answers[name]):
                continue
            for backend in self.answers[name]:
                self.llb.register_backend(name, backend)

    def states(self) -> dict[str, dict[Endpoint, HealthState]]:
        """Return the states by service, the same object where they are the same."""
        states: dict[str, dict[Endpoint, HealthState]] = {}
        for (name, endpoint), state in self.health.items():
            states.setdefault(name, {})[endpoint] = state
        self.told = {
            name: before if (before := self.told.get(name)) == each else each
            for name, each in states.items()
        }
        return self.told

    def registered(self, before: Mapping[int, Installed]) -> dict[str, tuple[Backend, ...]]:
        """Return what a turn ought to take for registered."""
        parts = {number: split(each) for number, each in before.items()}
        silent = [name for name in self.services if name not in self.answers]
        self.kept = {
            name: self.kept.get(name) or remembered(self.services[name], parts) for name in silent
        }
        result = {}
        for name in self.services:
            merged: dict[Endpoint, Backend] = {}
            for each in self.answers.get(name, ()):
                known = merged.get(each.endpoint)
                merged[each.endpoint] = merge(known, each) if known else each
            result[name] = (*merged.values(), *self.kept.get(name, ()))
        return result

    def from_nothing(
        self, registered: Mapping[str, tuple[Backend, ...]], before: Mapping[int, Installed]
    ) -> tuple[dict[int, Plan], tuple[ServiceStatus, ...]]:
        known = {Health.HEALTHY: True, Health.UNHEALTHY: False, Health.UNKNOWN: None}
        verdicts = {backend: known[state.status] for backend, state in self.health.items()}
        wanted = {
            number: resolve(
                self.services.values(),
                registered,
                verdicts,
                self.orders,
                self.routes,
                installed,
                family=number,
            )
            for number, installed in before.items()
        }
        plans = {
            number: make_plan(
                wanted[number],
                before[number],
                idle_slots=self.idle.get(number, frozenset()),
                clock=Ticks(self.now, 1),
            )
            for number in sorted(wanted)
        }
        desired = {key: each for some in wanted.values() for key, each in some.services.items()}
        statuses = tuple(
            service_status(
                service,
                registered[name],
                desired,
                self.health,
                verdicts,
                self.orders,
                is_kept=name not in self.answers,
            )
            for name, service in self.services.items()
        )
        return plans, statuses

    def news(self, statuses: tuple[ServiceStatus, ...]) -> tuple[str, ...]:
        gists = {each.name: gist(each) for each in statuses}
        news = [sentence(each) for each in statuses if self.said.get(each.name) != gists[each.name]]
        gone = [f"{name}: withdrawn" for name in self.said if name not in gists]
        self.said = gists
        return (*news, *gone)


def _set(values: dict[Any, Any], key: object, value: object) -> None:
    values.pop(key, None)
    if value is not None:
        values[key] = value


def _whole(change: object) -> tuple[object, ...]:
    """Return a change so that two are compared by all that they hold."""
    if isinstance(change, PutTable):
        return PutTable, change.service_slot, change.table.tobytes()
    if isinstance(change, WriteTable):
        return (
            WriteTable,
            change.service_slot,
            change.places.tobytes(),
            change.slots.tobytes(),
        )
    return (change,)


def _assert_only_changes_are_written(plan: Plan, before: Installed) -> None:
    for change in plan:
        if isinstance(change, WriteTable):
            assert (before.services[change.service_slot].table[change.places] != change.slots).all()
        if isinstance(change, PutTable):
            service = before.services.get(change.service_slot)
            assert service is None or service.table.size != change.table.size
        if isinstance(change, PutBackend):
            assert before.backends.get(change.slot) != change.backend


@pytest.fixture(autouse=True, scope="module")
def _small_tables() -> Iterator[None]:
    """Make the tables small, so that many turns can be tried."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maglev, "TABLE_SIZES", (251, 1_021, 5_003))
        yield


Turns.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTurns = Turns.TestCase
