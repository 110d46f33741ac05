"""Plans: cut anywhere and made anew, they get there, and no packet is led astray on the way."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llb_core.model import (
    BackendMode,
    Desired,
    DesiredBackend,
    DesiredService,
    Endpoint,
    Installed,
    Policy,
    Route,
    Scheduler,
    ServiceKey,
    Ticks,
    Timeouts,
    Transport,
)
from llb_core.planning import maglev
from llb_core.planning.changes import DeleteBackend, Plan, PutTable, WriteTable
from llb_core.planning.plan import make_plan
from llb_core.planning.turns import fill_table
from llb_core.testing import CutOffError, MemoryMaps

ACTIVE, RETIRED = BackendMode.ACTIVE, BackendMode.RETIRED
VIP = ipaddress.IPv4Address("203.0.113.10")
KEYS = [
    ServiceKey(Endpoint(VIP, 80), Transport.TCP),
    ServiceKey(Endpoint(VIP, 53), Transport.UDP),
    ServiceKey(Endpoint(VIP + 1, 80), Transport.TCP),
]
ENDPOINTS = [Endpoint(ipaddress.IPv4Address("10.0.0.1") + number, 8080) for number in range(5)]
ROUTES = [None, Route(2, ENDPOINTS[0].address, 1500), Route(3, ENDPOINTS[1].address, 9000)]


@pytest.fixture(autouse=True, scope="module")
def _small_tables() -> Iterator[None]:
    """Make the tables small, so that many plans can be tried."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maglev, "TABLE_SIZES", (251, 1_021, 40_009))
        yield


def quick_table(
    _: ServiceKey, some: Sequence[tuple[Endpoint, int]], size: int, scheduler: Scheduler
) -> maglev.Owners:
    """Fill a table quickly, in a way that depends on endpoints and weights."""
    mixed = np.arange(size) * 2_654_435_761 % 2**32
    salt = sum(int(endpoint.address) * weight for endpoint, weight in some)
    return (((mixed ^ salt) >> 7) % len(some)).astype(np.uint32)


def plan_for(desired: Desired, maps: MemoryMaps, idle: frozenset[int] = frozenset()) -> Plan:
    return make_plan(desired, maps.installed(), idle_slots=idle, build=quick_table)


def service(*backends: DesiredBackend, key: ServiceKey = KEYS[0]) -> Desired:
    return Desired({key: DesiredService("web", key, Timeouts(), backends)})


def active(*numbers: int, weight: int = 1) -> list[DesiredBackend]:
    return [DesiredBackend(ENDPOINTS[number], weight, ACTIVE) for number in numbers]


backends_strategy = st.builds(
    lambda chosen: tuple(
        DesiredBackend(endpoint, weight, mode, route)
        for endpoint, (weight, mode, route) in sorted(chosen.items())
    ),
    st.dictionaries(
        st.sampled_from(ENDPOINTS),
        st.tuples(
            st.integers(1, 3),
            st.sampled_from([ACTIVE, ACTIVE, BackendMode.DRAINING, BackendMode.ENDING]),
            st.sampled_from(ROUTES),
        ),
    ),
)

desired_strategy = st.builds(
    lambda chosen, routes: Desired(
        {
            key: DesiredService(name, key, Timeouts(udp=udp), backends)
            for key, (name, udp, backends) in chosen.items()
        },
        routes,
    ),
    st.dictionaries(
        st.sampled_from(KEYS),
        st.tuples(st.sampled_from(["web", "dns"]), st.sampled_from([30, 60]), backends_strategy),
    ),
    st.dictionaries(
        st.sampled_from([each.address for each in ENDPOINTS]), st.sampled_from(ROUTES[1:])
    ),
)

turns_strategy = st.lists(
    st.tuples(
        desired_strategy,
        st.none() | st.integers(0, 12),
        st.frozensets(st.integers(1, 12)),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(turns_strategy)
def test_a_plan_cut_anywhere_and_made_anew_gets_there_safely(
    turns: list[tuple[Desired, int | None, frozenset[int]]],
) -> None:
    maps = MemoryMaps()  # checks after every change that no place leads astray
    for desired, cut, idle in turns:
        plan = plan_for(desired, maps, idle)
        maps.cut_after = None if cut is None else len(maps.applied) + cut
        try:
            maps.apply(plan)
        except CutOffError:
            continue
        assert_is(maps.installed(), desired)
        assert plan_for(desired, maps).changes == ()
    maps.cut_after = None
    maps.apply(plan_for(turns[-1][0], maps))
    assert_is(maps.installed(), turns[-1][0])
    assert plan_for(turns[-1][0], maps).changes == ()


@settings(max_examples=100, deadline=None)
@given(desired_strategy, desired_strategy)
def test_every_cut_of_a_plan_leads_to_the_same_end(first: Desired, second: Desired) -> None:
    straight = MemoryMaps()
    straight.apply(plan_for(first, straight))
    plan = plan_for(second, straight)
    for cut in range(len(plan)):
        maps = MemoryMaps()
        maps.apply(plan_for(first, maps))
        maps.apply(Plan(plan.changes[:cut]))
        maps.apply(plan_for(second, maps))
        assert_is(maps.installed(), second)
        assert plan_for(second, maps).changes == ()


@settings(max_examples=100, deadline=None)
@given(desired_strategy, desired_strategy)
def test_only_places_that_change_are_written(first: Desired, second: Desired) -> None:
    maps = MemoryMaps()
    maps.apply(plan_for(first, maps))
    before = maps.installed()
    maps.apply(plan_for(second, maps))
    after = maps.installed()
    differ = sum(
        int((after.services[slot].table != known.table).sum())
        for slot, known in before.services.items()
        if slot in after.services and after.services[slot].table.size == known.table.size
    )
    assert maps.places_written == differ


@settings(max_examples=100, deadline=None)
@given(desired_strategy, desired_strategy)
def test_a_backend_keeps_its_slot_as_long_as_it_is_there(first: Desired, second: Desired) -> None:
    maps = MemoryMaps()
    maps.apply(plan_for(first, maps))
    before = maps.installed()
    maps.apply(plan_for(second, maps))
    after = maps.installed()
    for slot, backend in before.backends.items():
        assert after.backends[slot].endpoint == backend.endpoint
        assert after.backends[slot].service_slot == backend.service_slot


def assert_is(installed: Installed, desired: Desired) -> None:
    """Assert that what is installed is what was desired, and that the rest is on its way out."""
    by_key = {each.key: each for each in installed.services.values()}
    named = set()
    for key, wanted in desired.services.items():
        record = by_key[key]
        assert record.is_reachable
        assert (record.name, record.timeouts) == (wanted.name, wanted.timeouts)
        in_table = {installed.backends[slot].endpoint for slot in np.unique(record.table).tolist()}
        assert in_table == {b.endpoint for b in wanted.backends if b.mode is ACTIVE}
        for backend in wanted.backends:
            (slot,) = (
                each.slot
                for each in installed.backends.values()
                if each.service_slot == record.slot and each.endpoint == backend.endpoint
            )
            put = installed.backends[slot]
            assert (put.mode, put.weight, put.route) == (
                backend.mode,
                backend.weight,
                backend.route,
            )
            named.add(slot)
    for slot, backend in installed.backends.items():
        assert slot in named or backend.mode is RETIRED
    for key, record in by_key.items():
        if key not in desired.services:
            assert not record.is_reachable
            assert record.table.size == 0


def test_a_retired_backend_that_comes_back_gets_its_slot_again() -> None:
    maps = MemoryMaps()
    for numbers in [(0, 1, 2), (0, 2), (0, 1, 2)]:
        maps.apply(plan_for(service(*active(*numbers)), maps))
    assert {b.endpoint: s for s, b in maps.installed().backends.items()} == {
        ENDPOINTS[0]: 1,
        ENDPOINTS[1]: 2,
        ENDPOINTS[2]: 3,
    }


def test_a_slot_is_freed_only_when_its_backend_is_retired_and_idle() -> None:
    maps = MemoryMaps()
    maps.apply(plan_for(service(*active(0, 1)), maps))
    assert not any(isinstance(c, DeleteBackend) for c in plan_for(service(), maps, frozenset({1})))
    maps.apply(plan_for(service(), maps, frozenset({1})))
    maps.apply(plan_for(service(), maps, frozenset({1})))
    assert set(maps.installed().backends) == {2}
    maps.apply(plan_for(service(*active(2, 3)), maps))
    assert maps.installed().backends[1].endpoint == ENDPOINTS[2], "the lowest free slot is next"
    assert maps.installed().backends[3].endpoint == ENDPOINTS[3]


def test_a_service_keeps_its_slot_until_its_last_backend_is_freed() -> None:
    maps = MemoryMaps()
    maps.apply(plan_for(service(*active(0)), maps))
    maps.apply(plan_for(Desired({}), maps))
    maps.apply(plan_for(service(*active(1), key=KEYS[1]), maps))
    assert {each.key: each.slot for each in maps.installed().services.values()} == {
        KEYS[0]: 1,
        KEYS[1]: 2,
    }
    maps.apply(plan_for(service(*active(1), key=KEYS[1]), maps, frozenset({1})))
    assert set(maps.installed().services) == {2}


def test_connections_of_retired_backends_follow_a_route_that_changes() -> None:
    maps = MemoryMaps()
    maps.apply(plan_for(service(*active(0)), maps))
    maps.apply(plan_for(Desired({}, {ENDPOINTS[0].address: ROUTES[2]}), maps))
    assert maps.installed().backends[1].route == ROUTES[2]
    maps.apply(plan_for(Desired({}, {}), maps))
    assert maps.installed().backends[1].route == ROUTES[2], "the last one that was known stays"


def test_one_backend_of_many_that_changes_writes_its_places_alone() -> None:
    maps = MemoryMaps()
    maps.apply(make_plan(service(*active(0, 1, 2, 3)), maps.installed()))
    plan = make_plan(service(*active(0, 1, 2)), maps.installed())
    (write,) = (change for change in plan if isinstance(change, WriteTable))
    assert len(write.places) == pytest.approx(1_021 / 4, rel=0.1)


def test_health_does_not_change_the_size_of_the_table() -> None:
    maps = MemoryMaps()
    many = [
        DesiredBackend(Endpoint(ENDPOINTS[0].address + number, 80), 1, ACTIVE)
        for number in range(400)
    ]
    maps.apply(plan_for(service(*many), maps))
    few = [
        DesiredBackend(b.endpoint, 1, ACTIVE if i < 10 else BackendMode.DRAINING)
        for i, b in enumerate(many)
    ]
    assert not any(isinstance(change, PutTable) for change in plan_for(service(*few), maps))


def test_each_change_says_in_one_line_what_it_does() -> None:
    maps = MemoryMaps()
    backend = DesiredBackend(ENDPOINTS[0], 2, ACTIVE, ROUTES[1])
    plan = plan_for(service(backend), maps)
    maps.apply(plan)
    assert str(plan).splitlines() == [
        "put service web on 203.0.113.10:80/tcp",
        "put backend 10.0.0.1:8080: active in service web, weight 2, via 10.0.0.1",
        "put table of service web: 251 places",
        "open 203.0.113.10:80/tcp to service web",
    ]
    maps.apply(plan_for(service(*active(0, 1)), maps))
    plan = plan_for(Desired({}), maps)
    maps.apply(plan)
    assert str(plan).splitlines() == [
        "close 203.0.113.10:80/tcp",
        "drop table of service web",
        "put backend 10.0.0.1:8080: retired in service web, weight 1, without a route",
        "put backend 10.0.0.2:8080: retired in service web, weight 1, without a route",
    ]
    plan = plan_for(Desired({}), maps, frozenset({1, 2}))
    assert str(plan).splitlines() == [
        "delete backend 10.0.0.1:8080 of service web",
        "delete backend 10.0.0.2:8080 of service web",
        "delete service web",
    ]


def started(maps: MemoryMaps) -> dict[Endpoint, int]:
    return {each.endpoint: each.started for each in maps.installed().backends.values()}


def start(maps: MemoryMaps, seconds: float, *some: DesiredBackend, slow: float = 30) -> Plan:
    """Carry out what is desired at that second, with ten ticks a second, and return the plan."""
    policy = Policy(slow_start=slow)
    wanted = {KEYS[0]: DesiredService("web", KEYS[0], Timeouts(), some, policy)}
    clock = Ticks(round(1000 + seconds * 10), 10)
    plan = make_plan(Desired(wanted), maps.installed(), build=quick_table, clock=clock)
    maps.apply(plan)
    return plan


def draining(number: int) -> DesiredBackend:
    return DesiredBackend(ENDPOINTS[number], 1, BackendMode.DRAINING)


def test_slow_start_begins_when_a_backend_begins_to_take_connections() -> None:
    maps = MemoryMaps()
    start(maps, 0, *active(0), draining(1))
    assert started(maps) == {ENDPOINTS[0]: 1000, ENDPOINTS[1]: 0}

    start(maps, 5, *active(0, 1))
    assert started(maps) == {ENDPOINTS[0]: 1000, ENDPOINTS[1]: 1050}

    assert not start(maps, 29.9, *active(0, 1))  # whoever makes the plan, it is as it was


def test_slow_start_ends_and_begins_anew_after_an_illness() -> None:
    maps = MemoryMaps()
    start(maps, 0, *active(0))
    start(maps, 30, *active(0))
    assert started(maps) == {ENDPOINTS[0]: 0}

    start(maps, 40, draining(0))
    start(maps, 50, *active(0))
    assert started(maps) == {ENDPOINTS[0]: 1500}

    start(maps, 51, draining(0))
    assert started(maps) == {ENDPOINTS[0]: 0}


def test_backend_that_serves_does_not_start_when_slow_start_is_switched_on() -> None:
    maps = MemoryMaps()
    start(maps, 0, *active(0), slow=0)

    start(maps, 1, *active(0), slow=30)

    assert started(maps) == {ENDPOINTS[0]: 0}


def test_slow_start_survives_the_wrap_of_the_clock() -> None:
    maps = MemoryMaps()
    start(maps, (2**32 - 1010) / 10, *active(0))

    start(maps, (2**32 + 280 - 1000) / 10, *active(0))
    assert started(maps) == {ENDPOINTS[0]: 2**32 - 10}

    start(maps, (2**32 + 290 - 1000) / 10, *active(0))
    assert started(maps) == {ENDPOINTS[0]: 0}


def test_table_of_round_robin_is_the_turns() -> None:
    built: list[Scheduler] = []

    def build(
        _: ServiceKey, some: Sequence[tuple[Endpoint, int]], size: int, scheduler: Scheduler
    ) -> maglev.Owners:
        built.append(scheduler)
        return fill_table(some, size, scheduler)

    maps = MemoryMaps()
    wanted = DesiredService(
        "web", KEYS[0], Timeouts(), tuple(active(0, weight=3) + active(1)),
        Policy(Scheduler.ROUND_ROBIN),
    )  # fmt: skip
    maps.apply(make_plan(Desired({KEYS[0]: wanted}), maps.installed(), build=build))

    assert built == [Scheduler.ROUND_ROBIN]
    (service,) = maps.installed().services.values()
    assert service.table[:8].tolist() == [1, 1, 2, 1, 1, 1, 2, 1]
