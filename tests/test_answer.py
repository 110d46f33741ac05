"""A provider's answer held against the contract, and a sudden loss held back."""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

import pytest

from llb_core.answer import MAX_BACKENDS, check_answer
from llb_core.errors import ProviderError
from llb_core.guard import Guard, lost
from llb_core.model import Backend, Endpoint

MAPPED = ipaddress.ip_address("::ffff:10.0.0.2")
V4 = frozenset({4})
A = ipaddress.ip_address("10.0.0.1")


def backend(number: int = 0, **more: Any) -> Backend:
    return Backend(Endpoint(A + number, 80), **more)


def test_returns_the_backends_sorted() -> None:
    assert check_answer([backend(2), backend(1)], V4) == (backend(1), backend(2))
    assert check_answer((each for each in [backend()]), V4) == (backend(),)
    assert check_answer([], V4) == ()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("10.0.0.1:80", "entry 1 of 2: '10.0.0.1:80' is no Backend"),
        (Backend("10.0.0.1:80"), "entry 1 of 2: '10.0.0.1:80' is no Endpoint"),  # type: ignore[arg-type]
        (Backend(Endpoint("web", 80)), "entry 1 of 2: 'web' is not an IP address"),  # type: ignore[arg-type]
        (
            Backend(Endpoint(A + 1, 0)),
            "entry 1 of 2: 10.0.0.2 has port 0, not one from 1 to 65535",
        ),
        (
            Backend(Endpoint(A + 1, None)),  # type: ignore[arg-type]
            "entry 1 of 2: 10.0.0.2 has port None, not one from 1 to 65535",
        ),
        (
            backend(1, weight=-1),
            "entry 1 of 2: 10.0.0.2:80 has weight -1, not a whole number from 0 to 65535",
        ),
        (
            backend(1, weight=float("nan")),
            "entry 1 of 2: 10.0.0.2:80 has weight nan, not a whole number from 0 to 65535",
        ),
        (
            backend(1, weight=True),
            "entry 1 of 2: 10.0.0.2:80 has weight True, not a whole number from 0 to 65535",
        ),
        (backend(), "entry 1 of 2: 10.0.0.1:80 is entry 0 already"),
        (
            Backend(Endpoint(ipaddress.ip_address("::2"), 80)),
            "entry 1 of 2: [::2]:80 is IPv6, and the service is IPv4",
        ),
        (
            Backend(Endpoint(ipaddress.ip_address("224.0.0.1"), 80)),
            "entry 1 of 2: 224.0.0.1 is not the address of one host on a network",
        ),
        (
            Backend(Endpoint(ipaddress.ip_address("fe80::2"), 80)),
            "entry 1 of 2: fe80::2 is not the address of one host on a network",
        ),
        (
            Backend(Endpoint(ipaddress.ip_address("2001:db8::2%eth0"), 80)),
            "entry 1 of 2: 2001:db8::2%eth0 is not the address of one host on a network",
        ),
        (
            Backend(Endpoint(MAPPED, 80)),
            f"entry 1 of 2: {MAPPED} is not the address of one host on a network",
        ),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_refuses_an_answer_whole_and_names_the_entry(entry: Any, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        check_answer([backend(), entry], V4)
    assert str(caught.value) == message


@pytest.mark.parametrize("answer", [None, 7, "10.0.0.1", b"10.0.0.1"])
def test_refuses_what_is_no_list(answer: Any) -> None:
    with pytest.raises(ProviderError, match="the answer is no list of backends but"):
        check_answer(answer, V4)


def test_refuses_a_million_entries_without_reading_them() -> None:
    endless = (backend(number) for number in itertools.count())
    with pytest.raises(ProviderError, match=f"more than {MAX_BACKENDS} backends for one service"):
        check_answer(endless, V4)
    assert next(endless).endpoint.address == A + MAX_BACKENDS + 1


def test_serves_both_families_where_the_service_does() -> None:
    six = Backend(Endpoint(ipaddress.ip_address("2001:db8::1"), 80))
    assert check_answer([backend(), six], frozenset({4, 6})) == (backend(), six)


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
    assert lost(before, [backend(3), backend(4)]) == 2
    assert lost(before, [backend(1, weight=7), backend(2, draining=True)]) == 0
