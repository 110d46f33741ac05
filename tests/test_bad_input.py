"""What providers say wrongly: an error that names provider, service and entry, and the last good
answer stays, up to the maps; and one that hangs for ever, or ten, harm nobody else.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from llb_core.model import Backend, Endpoint
from llb_core.provider import Provider, ProviderContext, ProviderOptions
from llb_core.testing import Clock, FakeProvider, MemoryBalancer, some_backends, until

NO_PORT = "not one from 1 to 65535: name the port that the backend listens on"
NO_WEIGHT = (
    "not a whole number from 0 to 65535: write 1 for an equal share, 0 for no new connections"
)
NO_HOST = "is not the address of one host on a network"
OF_A_HOST = f"{NO_HOST}: name the backend's own, as 10.0.0.2 or 2001:db8::2"
GOOD = some_backends(1, 2)
A = ipaddress.ip_address("10.0.0.7")


def entry(address: Any = A, port: Any = 80, **more: Any) -> Backend:
    return Backend(Endpoint(address, port), **more)


class Unshowable:
    """What can't even be written into an error."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Unspeakable(RuntimeError):
    """An error that can't be told."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def raising(error: Exception) -> Iterator[Backend]:
    yield entry()
    raise error


def cut_off() -> Iterator[Backend]:
    yield entry()
    raise ConnectionResetError("by the registry")


NO_ADDRESS = "is not an IP address: make it one by ipaddress.ip_address()"
NO_BACKEND = "is no Backend: make it llb_core.Backend(Endpoint(address, port))"
NO_LIST = "the answer is no list of backends but {}: gather_backends() must return one"
TOO_MANY = (
    "entry 10000: more than 10000 backends for one service: have fewer named, or share them out "
    "among several services"
)
WHOLE = f"{NO_WEIGHT}"
BAD: dict[str, tuple[Any, str]] = {
    "no port": (entry(port=None), f"10.0.0.7 has port None, {NO_PORT}"),
    "port 0": (entry(port=0), f"10.0.0.7 has port 0, {NO_PORT}"),
    "port 65536": (entry(port=65536), f"10.0.0.7 has port 65536, {NO_PORT}"),
    "port as text": (entry(port="80"), f"10.0.0.7 has port '80', {NO_PORT}"),
    "port NaN": (entry(port=float("nan")), f"10.0.0.7 has port nan, {NO_PORT}"),
    "a name": (entry("web.example"), f"'web.example' {NO_ADDRESS}"),
    "an address as text": (entry("10.0.0.7"), f"'10.0.0.7' {NO_ADDRESS}"),
    "negative weight": (entry(weight=-1), f"10.0.0.7:80 has weight -1, {WHOLE}"),
    "weight NaN": (entry(weight=float("nan")), f"10.0.0.7:80 has weight nan, {WHOLE}"),
    "weight infinite": (entry(weight=float("inf")), f"10.0.0.7:80 has weight inf, {WHOLE}"),
    "weight 1.5": (entry(weight=1.5), f"10.0.0.7:80 has weight 1.5, {WHOLE}"),
    "weight too large": (entry(weight=65536), f"10.0.0.7:80 has weight 65536, {WHOLE}"),
    "weight beyond writing": (entry(weight=10**5000), f"10.0.0.7:80 has weight a int, {WHOLE}"),
    "weight as text": (entry(weight="1"), f"10.0.0.7:80 has weight '1', {WHOLE}"),
    "draining as text": (
        entry(draining="no"),
        "10.0.0.7:80 has draining 'no', neither True nor False",
    ),
    "healthy as text": (
        entry(healthy="no"),
        "10.0.0.7:80 has healthy 'no', neither True, False nor None",
    ),
    "twice": (GOOD[0], "10.0.0.1:8080 is entry 0 already: name it once"),
    "the SNAT address": (
        entry(ipaddress.ip_address("10.0.0.254")),
        (
            "10.0.0.254:80 is the balancer's own (loadbalancer.snat_addresses), so its packets "
            "would go round in a circle: name the address of the host that serves"
        ),
    ),
    "the network": (
        entry(ipaddress.ip_address("10.0.0.0")),
        (
            "10.0.0.0 is not the address of one host on a network but an end of 10.0.0.0/24 in "
            "loadbalancer.backend_cidrs (if a host has it all the same, add 10.0.0.0/32 there)"
        ),
    ),
    "IPv6": (
        entry(ipaddress.ip_address("2001:db8::7")),
        (
            "[2001:db8::7]:80 is IPv6, and the service is IPv4: leave it out, or give the service "
            "an address of IPv6"
        ),
    ),
    "multicast": (
        entry(ipaddress.ip_address("224.0.0.1")),
        f"224.0.0.1 {OF_A_HOST}",
    ),
    "broadcast": (
        entry(ipaddress.ip_address("255.255.255.255")),
        f"255.255.255.255 {OF_A_HOST}",
    ),
    "this network": (
        entry(ipaddress.ip_address("0.0.0.7")),
        f"0.0.0.7 {OF_A_HOST}",
    ),
    "this host": (
        entry(ipaddress.ip_address("127.0.0.1")),
        f"127.0.0.1 {OF_A_HOST}",
    ),
    "outside": (
        entry(ipaddress.ip_address("10.9.0.7")),
        (
            "10.9.0.7:80 is in no network of loadbalancer.backend_cidrs, so its answers would not "
            "be taken back: add its network there"
        ),
    ),
    "text": ("10.0.0.7:80", f"'10.0.0.7:80' {NO_BACKEND}"),
    "None": (None, f"None {NO_BACKEND}"),
    "a table": ({"address": "10.0.0.7"}, f"{{'address': '10.0.0.7'}} {NO_BACKEND}"),
    "a long text": ("x" * 10**6, f"'{'x' * 59} {NO_BACKEND}"),
    "what can't be shown": (Unshowable(), f"a Unshowable {NO_BACKEND}"),
}
BAD_WHOLE: dict[str, tuple[Any, str]] = {
    "None": (None, NO_LIST.format("NoneType")),
    "text": ("10.0.0.7:80", NO_LIST.format("str")),
    "a table": ({entry(): 1}, NO_LIST.format("dict")),
    "an error that can't be told": (raising(Unspeakable()), "Unspeakable"),
    "an error unfit for a terminal": (
        raising(RuntimeError("\x1b[2J\0 gone")),
        "RuntimeError: \ufffd[2J\ufffd gone",
    ),
    "an error without end": (raising(RuntimeError("x" * 10**7)), f"RuntimeError: {'x' * 1000}…"),
    "cut off": (cut_off(), "ConnectionResetError: by the registry"),
    "a million": (
        (entry(port=1 + number % 65535) for number in range(10**6)),
        TOO_MANY,
    ),
    "no end": ((entry() for _ in itertools.count()), TOO_MANY),
}


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def balancer(provider: FakeProvider) -> Iterator[MemoryBalancer]:
    """A balancer that has what the provider said first: two backends."""
    provider.say(GOOD)
    cidrs = [ipaddress.ip_network("10.0.0.0/24")]
    ours = {ipaddress.ip_address("10.0.0.254"): "loadbalancer.snat_addresses"}
    with MemoryBalancer(families=frozenset({4}), backend_cidrs=cidrs, clock=Clock()) as made:
        made.add(provider).ours = ours
        made.turn_until(made.active)
        yield made


def endpoints(*backends: Backend) -> frozenset[Endpoint]:
    return frozenset(backend.endpoint for backend in backends)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        *(
            pytest.param([*GOOD, bad, bad], f"entry 2 of 4: {fault}", id=f"entry: {case}")
            for case, (bad, fault) in BAD.items()
        ),
        *(
            pytest.param(bad, fault, id=f"answer: {case}")
            for case, (bad, fault) in BAD_WHOLE.items()
        ),
    ],
)
def test_the_last_good_answer_stays_and_the_error_names_the_place(
    provider: FakeProvider,
    balancer: MemoryBalancer,
    caplog: pytest.LogCaptureFixture,
    answer: Any,
    fault: str,
) -> None:
    (source,) = balancer.sources
    provider.say(answer)
    until(lambda: source.error and caplog.messages)
    assert not balancer.turn().plan, "what is installed stays"
    assert balancer.active() == endpoints(*GOOD)
    assert caplog.messages == [
        f"web: provider fake: {fault}; its last answer stays (2 backends, 0 s old)"
    ]
    provider.say(some_backends(3))
    balancer.turn_until(lambda: balancer.active() == endpoints(*some_backends(3)))
    assert not source.error


def test_one_bad_entry_spoils_none_of_the_other_providers(
    provider: FakeProvider, balancer: MemoryBalancer
) -> None:
    other = FakeProvider()
    other.say(some_backends(3))
    second = balancer.add(other)
    until(lambda: second.is_ready)
    provider.say([entry(weight=-1)])
    until(lambda: balancer.sources[0].error)
    balancer.turn()
    assert balancer.active() == endpoints(*some_backends(1, 2, 3))


def test_an_answer_that_takes_an_hour_does_not_count(
    provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    provider.say(GOOD)
    with MemoryBalancer(clock=clock) as balancer:
        source = balancer.add(provider)
        balancer.turn_until(balancer.active)
        provider.hang(then=some_backends(3))
        until(lambda: provider.is_hanging)
        provider.say(GOOD)  # From the next question on.
        clock.now += 3600
        late = (
            "asking the provider takes too long, more than 30 s: see what it waits for (llb "
            "providers test fake), lower its timeouts, or set a longer time_limit in its class"
        )
        assert source.error == late
        balancer.turn()
        assert balancer.active() == endpoints(*GOOD)
        until(lambda: len(caplog.messages) == 2)
        balancer.turn()
        assert balancer.active() == endpoints(*GOOD)
    assert caplog.messages == [
        f"web: provider fake: {late}",
        (
            "web: provider fake: the answer took 3600.0 s; it counts within 30 s: have it "
            "answer sooner, or set a longer time_limit in its class; its last answer stays "
            "(2 backends, 3600 s old)"
        ),
    ]


@pytest.mark.parametrize("name", ["refresh", "time_limit"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9, "10", None], ids=repr)
def test_a_pace_that_nobody_can_keep_is_an_error_and_the_last_good_answer_stays(
    provider: FakeProvider,
    balancer: MemoryBalancer,
    caplog: pytest.LogCaptureFixture,
    name: str,
    seconds: Any,
) -> None:
    (source,) = balancer.sources
    setattr(provider, name, seconds)
    provider.say(some_backends(3))
    until(lambda: source.error and caplog.messages)
    assert not balancer.turn().plan, "what is installed stays"
    assert caplog.messages == [
        (
            f"web: provider fake: its {name} is {seconds!r}, not a number of seconds above 0 and "
            f"up to 86400: set {name} in the provider's class or its constructor; its last answer "
            "stays (2 backends, 0 s old)"
        )
    ]
    setattr(provider, name, 10)
    provider.say(some_backends(3))
    balancer.turn_until(lambda: balancer.active() == endpoints(*some_backends(3)))


class HangsAtOnce(Provider[ProviderOptions]):
    """Hangs where it is made, until the last of them is let go."""

    name = "hangs-at-once"
    gate = FakeProvider().closed

    def __init__(self, options: ProviderOptions, context: ProviderContext) -> None:
        super().__init__(options, context)
        self.gate.wait()

    def gather_backends(self) -> tuple[Backend, ...]:
        return ()


class HangsEverywhere(FakeProvider):
    """Answers once, and hangs in its wait, and even where it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = FakeProvider().closed

    def wait_for_change(self, timeout: float) -> bool:
        self.gate.wait()
        return False

    def close(self) -> None:
        self.gate.wait()


def test_ten_that_hang_for_ever_hold_up_nobody_else() -> None:
    """The eleventh answers, changes and is installed again and again, while no other moves."""
    hanging = [FakeProvider() for _ in range(6)]
    waiting = [HangsEverywhere() for _ in range(2)]
    eleventh = FakeProvider()
    with MemoryBalancer() as balancer:
        try:
            for number, each in enumerate(hanging):
                each.hang()
                balancer.add(each, service=f"gather-{number}")
            for number, stuck in enumerate(waiting):
                balancer.add(stuck, service=f"wait-{number}")
            for number in range(2):
                balancer.add(HangsAtOnce, service=f"make-{number}")
            until(lambda: all(each.is_hanging for each in hanging))
            balancer.add(eleventh, service="eleventh")
            for numbers in [(1,), (2, 3), (), (4, 5, 6)]:
                eleventh.say(some_backends(*numbers))
                wanted = endpoints(*some_backends(*numbers))
                balancer.turn_until(lambda wanted=wanted: balancer.active("eleventh") == wanted)
            assert all(each.is_hanging and each.asked == 1 for each in hanging)
            assert [each.asked for each in waiting] == [1, 1]
        finally:
            HangsAtOnce.gate.set()
            for each in waiting:
                each.gate.set()


def test_one_provider_that_hangs_leaves_the_other_of_its_service_alone() -> None:
    hanging, other = FakeProvider(), FakeProvider()
    hanging.hang()
    other.say(GOOD)
    with MemoryBalancer() as balancer:
        balancer.add(hanging)
        balancer.add(other)
        balancer.turn_until(lambda: balancer.active() == endpoints(*GOOD))
        assert hanging.is_hanging
