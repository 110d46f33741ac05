"""The text of a backends file: what it says, and what is wrong with it."""

from __future__ import annotations

import ipaddress

import pytest
from llb_provider_static.backends_file import parse_backends

from llb_core import Backend, Endpoint, ProviderError


def endpoint(address: str, port: int) -> Endpoint:
    return Endpoint(ipaddress.ip_address(address), port)


def test_reads_backends_with_their_defaults() -> None:
    text = """
        [[backends]]
        address = "10.0.0.2"
        port = 8080
        [[backends]]
        address = "10.0.0.3"
        port = 8081
        weight = 0
        draining = true
    """
    assert parse_backends(text, "b.toml") == (
        Backend(endpoint("10.0.0.2", 8080)),
        Backend(endpoint("10.0.0.3", 8081), weight=0, draining=True),
    )


def test_an_empty_list_is_none() -> None:
    assert parse_backends("backends = []", "b.toml") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "b.toml: backends: is missing: write backends = [] for none"),
        ("[backend]\n", "b.toml: backends: is missing: write backends = [] for none"),
        ("backends = 3", "b.toml: backends: 3 is not a list"),
        ("backends = [3]", "b.toml: backends[0]: 3 is not a table"),
        ("backends = [\n[", "b.toml: is not valid TOML: Invalid value (at end of document)"),
        (
            'backends = [{address = "10.0.0", port = 80}]',
            'b.toml: backends[0].address: "10.0.0" is not an IP address',
        ),
        (
            'backends = [{address = "web.example", port = 80}]',
            'b.toml: backends[0].address: "web.example" is not an IP address',
        ),
        (
            "backends = [{address = 10, port = 80}]",
            "b.toml: backends[0].address: 10 is not an IP address",
        ),
        ('backends = [{address = "10.0.0.2"}]', "b.toml: backends[0].port: is missing"),
        (
            'backends = [{address = "10.0.0.2", port = 0}]',
            "b.toml: backends[0].port: 0 is less than 1",
        ),
        (
            'backends = [{address = "10.0.0.2", port = "80"}]',
            'b.toml: backends[0].port: "80" is not a whole number',
        ),
        (
            'backends = [{address = "10.0.0.2", port = 80, weight = -1}]',
            "b.toml: backends[0].weight: -1 is less than 0",
        ),
        (
            'backends = [{address = "10.0.0.2", port = 80, weight = nan}]',
            "b.toml: backends[0].weight: NaN is not a whole number",
        ),
        (
            'backends = [{address = "10.0.0.2", port = 80, weight = 65536}]',
            "b.toml: backends[0].weight: 65536 is more than 65535",
        ),
        (
            'backends = [{address = "10.0.0.2", port = 80, wieght = 2}]',
            "b.toml: backends[0].wieght: unknown key (did you mean weight?)",
        ),
        (
            "backends = []\nservice = 1",
            "b.toml: service: unknown key (known are: backends)",
        ),
        (
            'backends = [{address = "10.0.0.2", port = 80}, {address = "10.0.0.2", port = 80}]',
            "b.toml: backends[1]: 10.0.0.2:80 is backends[0] already",
        ),
        (
            "backends = [1, 2, 3, 4, 5]",
            (
                "b.toml: backends[0]: 1 is not a table; backends[1]: 2 is not a table; "
                "backends[2]: 3 is not a table; and 2 more"
            ),
        ),
    ],
)
def test_names_file_place_and_fault(text: str, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        parse_backends(text, "b.toml")
    assert str(caught.value) == message
