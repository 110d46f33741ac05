"""A provider's answer held against the contract, and a sudden loss held back."""

from __future__ import annotations

import enum
import ipaddress
import itertools
import math
from typing import Any

import pytest

from llb_core.answer import MAX_BACKENDS, check_answer, check_seconds
from llb_core.errors import ProviderError
from llb_core.guard import Guard, lost
from llb_core.model import Backend, Endpoint

NO_PORT = "not one from 1 to 65535: name the port that the backend listens on"
NO_WEIGHT = (
    "not a whole number from 0 to 65535: write 1 for an equal share, 0 for no new connections"
)
NO_HOST = "is not the address of one host on a network"
OF_A_HOST = f"{NO_HOST}: name the backend's own, as 10.0.0.2 or 2001:db8::2"
ROUTED = f"{NO_HOST}: it is known on its link alone, so name one that is routed, without %"
MAPPED = ipaddress.ip_address("::ffff:10.0.0.2")
V4 = frozenset({4})
A = ipaddress.ip_address("10.0.0.1")


def backend(number: int = 0, **more: Any) -> Backend:
    return Backend(Endpoint(A + number, 80), **more)


def test_returns_the_backends_sorted() -> None:
    assert check_answer([backend(2), backend(1)], V4) == (backend(1), backend(2))
    assert check_answer((each for each in [backend()]), V4) == (backend(),)
    assert check_answer([], V4) == ()


def test_returns_plain_values_where_a_provider_has_its_own_kinds_of_them() -> None:
    class Number(int, enum.Enum):
        HTTP = 8080

    class Named(Endpoint):
        def __str__(self) -> str:
            return "web"

    class Tagged(Backend):
        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = Backend.__hash__

    said = [Tagged(Named(A, Number.HTTP), Number.HTTP, draining=True, healthy=False, entry="a")]
    (answer,) = check_answer(said, V4)
    assert answer == Backend(Endpoint(A, 8080), 8080, draining=True, healthy=False)
    assert (str(answer.endpoint), f"{answer.weight}", answer.entry) == (f"{A}:8080", "8080", "a")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "10.0.0.1:80",
            (
                "entry 1 of 2: '10.0.0.1:80' is no Backend: make it "
                "llb_core.Backend(Endpoint(address, port))"
            ),
        ),
        (
            Backend("10.0.0.1:80", entry="line 7"),  # type: ignore[arg-type]
            ("line 7: '10.0.0.1:80' is no Endpoint: make it llb_core.Endpoint(address, port)"),
        ),
        (
            Backend(Endpoint("web", 80)),  # type: ignore[arg-type]
            ("entry 1 of 2: 'web' is not an IP address: make it one by ipaddress.ip_address()"),
        ),
        (
            Backend(Endpoint(A + 1, 0)),
            f"entry 1 of 2: 10.0.0.2 has port 0, {NO_PORT}",
        ),
        (
            Backend(Endpoint(A + 1, None)),  # type: ignore[arg-type]
            f"entry 1 of 2: 10.0.0.2 has port None, {NO_PORT}",
        ),
        (
            backend(1, weight=-1),
            f"entry 1 of 2: 10.0.0.2:80 has weight -1, {NO_WEIGHT}",
        ),
        (
            backend(1, weight=float("nan")),
            f"entry 1 of 2: 10.0.0.2:80 has weight nan, {NO_WEIGHT}",
        ),
        (
            backend(1, weight=True),
            f"entry 1 of 2: 10.0.0.2:80 has weight True, {NO_WEIGHT}",
        ),
        (
            backend(entry="line 7"),
            "line 7: 10.0.0.1:80 is line 1 already: name it once",
        ),
        (
            Backend(Endpoint(ipaddress.ip_address("::2"), 80)),
            (
                "entry 1 of 2: [::2]:80 is IPv6, and the service is IPv4: leave it out, or give "
                "the service an address of IPv6"
            ),
        ),
        (
            Backend(Endpoint(ipaddress.ip_address("224.0.0.1"), 80)),
            f"entry 1 of 2: 224.0.0.1 {OF_A_HOST}",
        ),
        (
            Backend(Endpoint(ipaddress.ip_address("fe80::2"), 80)),
            f"entry 1 of 2: fe80::2 {ROUTED}",
        ),
        (
            Backend(Endpoint(ipaddress.ip_address("2001:db8::2%eth0"), 80)),
            f"entry 1 of 2: 2001:db8::2%eth0 {ROUTED}",
        ),
        (
            Backend(Endpoint(MAPPED, 80)),
            f"entry 1 of 2: {MAPPED} {NO_HOST}: it is IPv4's, so write 10.0.0.2",
        ),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_refuses_an_answer_whole_and_names_the_entry(entry: Any, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        check_answer([backend(entry="line 1"), entry], V4)
    assert str(caught.value) == message


class Unequal(ipaddress.IPv4Address):
    """Equals no other, and so none of the balancer's own."""

    __hash__ = ipaddress.IPv4Address.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Unspeakable:
    """Raises what no `except Exception` catches, as soon as it is written."""

    def __repr__(self) -> str:
        raise SystemExit(7)


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        (
            ipaddress.ip_interface("10.0.0.1/24"),
            (
                "IPv4Interface('10.0.0.1/24') is an interface's address with its network, not an "
                "IP address: name its ip alone"
            ),
        ),
        (
            ipaddress.ip_interface("2001:db8::1/64"),
            (
                "IPv6Interface('2001:db8::1/64') is an interface's address with its network, not "
                "an IP address: name its ip alone"
            ),
        ),
        (
            Unequal("10.0.0.1"),
            "Unequal('10.0.0.1') is not an IP address: make it one by ipaddress.ip_address()",
        ),
        (
            Unspeakable(),
            "a Unspeakable is not an IP address: make it one by ipaddress.ip_address()",
        ),
    ],
    ids=["IPv4Interface", "IPv6Interface", "another kind", "not to be written"],
)
def test_refuses_what_would_equal_no_address_of_ours(address: Any, fault: str) -> None:
    ours = {ipaddress.ip_address(each): "ours" for each in ("10.0.0.1", "2001:db8::1")}
    with pytest.raises(ProviderError) as caught:
        check_answer([Backend(Endpoint(address, 80))], frozenset({4, 6}), ours=ours)
    assert str(caught.value) == f"entry 0 of 1: {fault}"


@pytest.mark.parametrize("answer", [None, 7, "10.0.0.1", b"10.0.0.1"])
def test_refuses_what_is_no_list(answer: Any) -> None:
    with pytest.raises(ProviderError, match="the answer is no list of backends but"):
        check_answer(answer, V4)


def test_refuses_a_million_entries_without_reading_them() -> None:
    endless = (backend(number, entry=f"line {number}") for number in itertools.count())
    message = rf"^line {MAX_BACKENDS}: more than {MAX_BACKENDS} backends"
    with pytest.raises(ProviderError, match=message):
        check_answer(endless, V4)
    assert next(endless).endpoint.address == A + MAX_BACKENDS + 1


def test_serves_both_families_where_the_service_does() -> None:
    six = Backend(Endpoint(ipaddress.ip_address("2001:db8::1"), 80))
    assert check_answer([backend(), six], frozenset({4, 6})) == (backend(), six)


NETWORKS = [
    ipaddress.ip_network(each)
    for each in ("10.0.0.0/16", "10.0.5.0/24", "10.0.6.0/31", "10.0.8.0/32", "2001:db8::/64")
]
END = "is not the address of one host on a network but an end of"
CIRCLE = "so its packets would go round in a circle"
OURS = {
    ipaddress.ip_address("10.0.0.1"): "loadbalancer.snat_addresses",
    ipaddress.ip_address("2001:db8::7"): "the address of service web",
}


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("10.0.0.0", f"{END} 10.0.0.0/16"),
        ("10.0.255.255", f"{END} 10.0.0.0/16"),
        ("10.0.5.0", f"{END} 10.0.5.0/24"),
        ("10.0.5.255", f"{END} 10.0.5.0/24"),
        ("2001:db8::", f"{END} 2001:db8::/64"),
        ("10.0.0.1", f"balancer's own (loadbalancer.snat_addresses), {CIRCLE}"),
        ("2001:db8::7", f"balancer's own (the address of service web), {CIRCLE}"),
        ("10.0.0.2", None),
        ("10.0.4.0", None),
        ("10.0.4.255", None),
        ("10.0.6.0", None),
        ("10.0.6.1", None),
        ("10.0.8.0", None),
        ("2001:db8::1", None),
        ("2001:db8::ffff:ffff:ffff:ffff", None),
    ],
)
def test_refuses_what_no_host_can_have_in_these_networks(address: str, fault: str | None) -> None:
    entry = Backend(Endpoint(ipaddress.ip_address(address), 80), entry="web-1")
    both = frozenset({4, 6})
    if fault is None:
        assert check_answer([entry], both, NETWORKS, OURS) == (entry,)
        return
    with pytest.raises(ProviderError) as caught:
        check_answer([entry], both, NETWORKS, OURS)
    assert str(caught.value).startswith("web-1: ")
    assert fault in str(caught.value)


@pytest.mark.parametrize("seconds", [0.001, 1, 30.0, 86_400])
def test_takes_seconds_that_a_provider_can_have(seconds: float) -> None:
    assert check_seconds("refresh", seconds) == seconds


@pytest.mark.parametrize(
    "seconds", [0, -1, -0.5, math.nan, math.inf, 86_401, 10**5000, "10", None, True], ids=type
)
def test_refuses_seconds_that_nobody_can_wait(seconds: object) -> None:
    with pytest.raises(ProviderError, match=r"^its refresh is .*: set refresh in the provider's"):
        check_seconds("refresh", seconds)


@pytest.mark.parametrize(
    ("guard", "before", "after", "expected"),
    [
        (Guard(), 10, 5, False),
        (Guard(), 10, 4, True),
        (Guard(), 10, 0, True),
        (Guard(), 9, 0, False),
        (Guard(loss=1.0), 10, 0, False),
        (Guard(loss=0.0), 10, 9, True),
        (Guard(loss=0.2, backends=2), 3, 2, True),
    ],
)
def test_most_backends_gone_at_once_are_a_sudden_loss(
    guard: Guard, before: int, after: int, expected: bool
) -> None:
    some = [backend(number) for number in range(before)]
    assert guard.is_sudden_loss(some, some[:after]) is expected


def test_backends_replaced_by_others_are_lost_but_changed_ones_are_not() -> None:
    before = [backend(1), backend(2)]
    assert lost(before, [backend(3), backend(4)]) == {each.endpoint for each in before}
    assert lost(before, [backend(1, weight=7), backend(2, draining=True)]) == frozenset()
