"""Values that are written and read: an address with its port."""

from __future__ import annotations

import pytest

from llb_core.model import Endpoint, split_port


@pytest.mark.parametrize("text", ["10.0.0.2:80", "[2001:db8::2]:65535", "[fe80::1%eth0]:1"])
def test_an_endpoint_reads_what_it_writes(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


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
