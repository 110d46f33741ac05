"""Values that are written and read: an address with its port."""

from __future__ import annotations

import enum
import ipaddress

import pytest

from llb_core.model import Endpoint, split_port


@pytest.mark.parametrize("text", ["10.0.0.2:80", "[2001:db8::2]:65535", "[fe80::1%eth0]:1"])
def test_an_endpoint_reads_what_it_writes(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


class _Port(enum.IntEnum):
    HTTP = 80


class _Address(ipaddress.IPv4Address):
    pass


@pytest.mark.parametrize(
    ("address", "port"),
    [
        (ipaddress.IPv4Address("10.0.0.2"), _Port.HTTP),
        (_Address("10.0.0.2"), 80),
        (_Address("10.0.0.2"), _Port.HTTP),
    ],
)
def test_an_endpoint_of_derived_types_is_the_plain_one(
    address: ipaddress.IPv4Address, port: int
) -> None:
    plain, derived = Endpoint.parse("10.0.0.2:80"), Endpoint(address, port)
    assert derived == plain
    assert (derived.order, hash(derived)) == (plain.order, hash(plain))


@pytest.mark.parametrize(("address", "port"), [("10.0.0.2", 80), (None, None), ([], {})])
def test_an_endpoint_of_anything_can_be_made(address: object, port: object) -> None:
    assert Endpoint(address, port).port is port  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.2", ("10.0.0.2", None)),
        ("10.0.0.2:80", ("10.0.0.2", 80)),
        ("2001:db8::2", ("2001:db8::2", None)),
        ("2001:db8::2:80", ("2001:db8::2:80", None)),
        ("[2001:db8::2]", ("2001:db8::2", None)),
        ("[2001:db8::2]:80", ("2001:db8::2", 80)),
        ("198.51.100.0/24", ("198.51.100.0/24", None)),
        ("web.example:443", ("web.example", 443)),
    ],
)
def test_splits_a_port_off(text: str, expected: tuple[str, int | None]) -> None:
    assert split_port(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":80", "80", "web", "web.example:80", "10.0.0.2", "10.0.0.2:", "10.0.0.2:0"),
        *("10.0.0.2:-1", "10.0.0.2:65536", "10.0.0.2:+80", "10.0.0.2: 80", "10.0.0.2:8_0"),
        *("10.0.0.2:\u0661", "10.0.0.2:http", "10.0.0.2:80:80", f"10.0.0.2:{'9' * 5000}"),
        *("2001:db8::2", "2001:db8::2:80", "[2001:db8::2]", "[2001:db8::2]80", "[2001:db8::2"),
        *("[2001:db8::2]:", "[]:80", "[[2001:db8::2]]:80", "10.0.0.256:80", "\ud800:80"),
    ],
)
def test_refuses_what_is_no_address_with_a_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no port|is not") as caught:
        Endpoint.parse(text)
    assert len(str(caught.value)) < 200
