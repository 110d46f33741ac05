"""The text of a backends file: what it says, and what is wrong with it."""

from __future__ import annotations

import ipaddress
import json
from typing import Literal

import pytest
from llb_provider_static.backends_file import parse_backends
from llb_provider_static.json_text import read_json

from llb_core import Backend, Endpoint, ProviderError

NO_ADDRESS = "is not an IP address: write one, as 10.0.0.2 or 2001:db8::2"


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
            f'b.toml: backends[0].address: "10.0.0" {NO_ADDRESS}',
        ),
        (
            'backends = [{address = "web.example", port = 80}]',
            f'b.toml: backends[0].address: "web.example" {NO_ADDRESS}',
        ),
        (
            "backends = [{address = 10, port = 80}]",
            f"b.toml: backends[0].address: 10 {NO_ADDRESS}",
        ),
        ('backends = [{address = "10.0.0.2"}]', "b.toml: backends[0].port: is missing"),
        (
            'backends = [{address = "10.0.0.2", port = 0}]',
            "b.toml: backends[0].port: 0 is less than 1: write 1 or more",
        ),
        (
            'backends = [{address = "10.0.0.2", port = "80"}]',
            'b.toml: backends[0].port: "80" is not a whole number: write one, as 1',
        ),
        (
            'backends = [{address = "10.0.0.2", port = 80, weight = -1}]',
            "b.toml: backends[0].weight: -1 is less than 0: write 0 or more",
        ),
        (
            'backends = [{address = "10.0.0.2", port = 80, weight = nan}]',
            "b.toml: backends[0].weight: NaN is not a whole number: write one, as 1",
        ),
        (
            'backends = [{address = "10.0.0.2", port = 80, weight = 65536}]',
            "b.toml: backends[0].weight: 65536 is more than 65535: write 65535 or less",
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
            "b.toml: backends[1]: 10.0.0.2:80 is backends[0] already: remove one of them",
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


OURS = '{"backends": [{"address": "10.0.0.2", "port": 80, "weight": 3, "draining": true}]}'
FILE_SD = """
[
  {"targets": ["10.0.0.2:80", "10.0.0.3:80"], "labels": {"job": "web", "__meta_x": "y"}},
  {"targets": ["[2001:db8::1]:80"], "labels": {"llb_weight": "5", "llb_draining": "true"}},
  {"targets": []},
  {"targets": ["10.0.0.4:80"]}
]
"""


def test_reads_json_in_the_same_shape() -> None:
    assert parse_backends(OURS, "b.json", "json") == (
        Backend(endpoint("10.0.0.2", 80), weight=3, draining=True),
    )
    assert parse_backends('{"backends": []}', "b.json", "json") == ()


def test_reads_json_in_the_shape_of_prometheus() -> None:
    assert parse_backends(FILE_SD, "b.json", "json") == (
        Backend(endpoint("10.0.0.2", 80)),
        Backend(endpoint("10.0.0.3", 80)),
        Backend(endpoint("2001:db8::1", 80), weight=5, draining=True),
        Backend(endpoint("10.0.0.4", 80)),
    )
    assert parse_backends("[]", "b.json", "json") == ()


def group(target: str, more: str = "") -> str:
    return f'[{{"targets": ["10.0.0.1:1", {target}]{more}}}]'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("7", "is neither a table with the key backends nor a list"),
        ("{}", 'backends: is missing: write {"backends": []} for none'),
        (
            '{"backends": [1], "backends": []}',
            'the key "backends" is there twice in one object: write it once',
        ),
        (
            '{"backends": [{"address": "10.0.0.2", "port": 80, "weight": NaN}]}',
            "backends[0].weight: NaN is not a number of JSON: write a whole number",
        ),
        (
            '{"backends": [{"address": "10.0.0.2", "port": 80, "port": 81}]}',
            'backends[0]: the key "port" is there twice in one object: write it once',
        ),
        (
            '{"backends": [{"address": "10.0.0.2", "port": 80, "weight": %s}]}' % ("9" * 5000),
            "backends[0].weight: a number of 5000 digits: write a smaller one",
        ),
        (
            r'{"backends": [{"address": "\ud800", "port": 80}]}',
            f'backends[0].address: "\N{REPLACEMENT CHARACTER}" {NO_ADDRESS}',
        ),
        (
            r'{"backends": [{"\udfff": "10.0.0.2", "address": "10.0.0.2", "port": 80}]}',
            (
                "backends[0].\N{REPLACEMENT CHARACTER}: unknown key (known are: address, draining, "
                "port, weight)"
            ),
        ),
        (group("NaN"), "[0].targets[1]: NaN is not a number of JSON: write a whole number"),
        (
            group(r'"\ud800:80"'),
            (
                '[0].targets[1]: "\N{REPLACEMENT CHARACTER}:80": "\N{REPLACEMENT CHARACTER}" is '
                "not an IP address: write one, not a name"
            ),
        ),
        (
            '{"backends": [{"address": "10.0.0.2", "port": 80, "weight": 1.5}]}',
            "backends[0].weight: 1.5 is not a whole number: write one, as 1",
        ),
        ("[7]", "[0]: 7 is not a table"),
        ("[{}]", "[0].targets: is missing"),
        ('[{"targets": "10.0.0.2:80"}]', '[0].targets: "10.0.0.2:80" is not a list'),
        ('[{"tragets": [], "targets": []}]', "[0].tragets: unknown key (did you mean targets?)"),
        (group("80"), "[0].targets[1]: 80 is not a string"),
        (
            group('"10.0.0.2"'),
            '[0].targets[1]: "10.0.0.2" has no port: write it like "10.0.0.2:80"',
        ),
        (
            group('"[2001:db8::1]"'),
            '[0].targets[1]: "[2001:db8::1]" has no port: write it like "10.0.0.2:80"',
        ),
        (
            group('"web.example:80"'),
            (
                '[0].targets[1]: "web.example:80": "web.example" is not an IP address: write one, '
                "not a name"
            ),
        ),
        (
            group('"10.0.0.2:65536"'),
            '[0].targets[1]: "10.0.0.2:65536": "65536" is not a port from 1 to 65535',
        ),
        (
            group('"10.0.0.1:1"'),
            "[0].targets[1]: 10.0.0.1:1 is [0].targets[0] already: remove one of them",
        ),
        (group('"10.0.0.2:1"', ', "labels": 7'), "[0].labels: 7 is not a table"),
        (
            group('"10.0.0.2:1"', ', "labels": {"llb_weight": "-1"}'),
            '[0].labels: llb_weight: "-1" is not a number from 0 to 65535',
        ),
        (
            group('"10.0.0.2:1"', ', "labels": {"llb_weight": "65536"}'),
            '[0].labels: llb_weight: "65536" is not a number from 0 to 65535',
        ),
        (
            group('"10.0.0.2:1"', ', "labels": {"llb_weight": 5}'),
            '[0].labels: llb_weight: is not a string, as labels are: write it in quotes, "1"',
        ),
        (
            group('"10.0.0.2:1"', ', "labels": {"llb_draining": true}'),
            '[0].labels: llb_draining: is not a string, as labels are: write it in quotes, "false"',
        ),
        (
            group('"10.0.0.2:1"', ', "labels": {"llb_draining": "yes"}'),
            '[0].labels: llb_draining: "yes" is neither true nor false',
        ),
    ],
)
def test_names_place_and_fault_in_json(text: str, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        parse_backends(text, "b.json", "json")
    assert str(caught.value) == f"b.json: {message}"


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_refuses_what_is_nested_without_end(kind: Literal["toml", "json"]) -> None:
    text = ("backends = " if kind == "toml" else "") + "[" * 100_000
    with pytest.raises(ProviderError, match=r"^b: is not valid (TOML|JSON): "):
        parse_backends(text, "b", kind)


KEYS = {"bare": "a." * 20_000 + "a", "quoted": '"a" . ' * 20_000 + "a", "mixed": "'a'.b." * 9 + "c"}


@pytest.mark.parametrize("shape", ["{} = 1", "[{}]", "[[{}]]", "b = {{c = 1, {} = 1}}"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_names_the_line_of_a_key_without_end(key: str, shape: str) -> None:
    with pytest.raises(ProviderError) as caught:
        parse_backends("# a key\n" + shape.format(key), "b")
    assert str(caught.value) == (
        "b: is not valid TOML: a key of more than 16 parts (at line 2): write fewer, with dots "
        "between"
    )


def test_dots_elsewhere_are_no_key() -> None:
    text = f'# {"a." * 100}\nbackends = [] # "{"a." * 100}"\n'
    assert parse_backends(text, "b") == ()


def named(count: int, kind: str) -> str:
    """Write a file of so many backends, in one of the shapes."""
    addresses = [f"10.0.{number >> 8}.{number & 255}" for number in range(count)]
    if kind == "file_sd":
        targets = [f"{address}:80" for address in addresses]
        return json.dumps([{"targets": targets[:9]}, {"targets": targets[9:]}])
    if kind == "json":
        return json.dumps({"backends": [{"address": each, "port": 80} for each in addresses]})
    if kind == "inline":
        tables = ",\n".join(f'{{address = "{each}", port = 80}}' for each in addresses)
        return f"backends = [{tables}]"
    return "".join(f'[[backends]]\naddress = "{each}"\nport = 80\n' for each in addresses)


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("file_sd", "[1].targets[9991]"),
        ("json", "backends[10000]"),
        ("inline", "backends[10000]"),
        ("tables", "backends[10000] (at line 30001)"),
    ],
)
def test_names_the_first_backend_that_is_too_many(kind: str, place: str) -> None:
    read_as: Literal["toml", "json"] = "json" if kind in ("file_sd", "json") else "toml"
    assert len(parse_backends(named(10_000, kind), "b", read_as)) == 10_000
    with pytest.raises(ProviderError) as caught:
        parse_backends(named(10_001, kind), "b", read_as)
    assert str(caught.value) == (
        f"b: {place}: more than 10000 backends for one service: have fewer named, or share them "
        "out among several services"
    )


def test_groups_without_end_are_too_many_though_they_hold_nothing() -> None:
    with pytest.raises(ProviderError, match=r"^b: \[10000\]: more than 10000 backends"):
        parse_backends("[" + "{}," * 20_000 + "{}]", "b", "json")


def test_counts_problems_that_it_does_not_look_at() -> None:
    text = json.dumps({"backends": [], **{f"k{number}": 1 for number in range(5000)}})
    with pytest.raises(ProviderError, match=r"; k2: unknown key .*; and 4997 more$"):
        parse_backends(text, "b", "json")


def test_names_the_line_of_a_number_without_end() -> None:
    text = f"[[backends]]\nport = 80\nweight = {'9' * 5000}\n"
    with pytest.raises(ProviderError) as caught:
        parse_backends(text, "b")
    assert str(caught.value) == (
        "b: is not valid TOML: a number of thousands of digits (at line 3)"
    )


def test_names_the_place_of_a_number_that_can_not_be_written() -> None:
    text = f'backends = [{{address = "10.0.0.2", port = 80, weight = 0x{"f" * 5000}}}]'
    with pytest.raises(
        ProviderError, match=r"^b: backends\[0\]\.weight: int of thousands of digits"
    ):
        parse_backends(text, "b")


def test_labels_that_are_null_are_none() -> None:
    for each in parse_backends(group('"10.0.0.2:1"', ', "labels": null'), "b", "json"):
        assert (each.weight, each.draining) == (1, False)


def test_labels_of_others_may_hold_anything() -> None:
    text = group(r'"10.0.0.2:1"', r', "labels": {"job": "\ud800", "\udfff": 1}')
    assert len(parse_backends(text, "b", "json")) == 2


@pytest.mark.parametrize(
    ("text", "kind", "entry"),
    [(OURS, "json", "b: backends[0]"), (FILE_SD, "json", "b: [0].targets[0]")],
    ids=["ours", "file_sd"],
)
def test_each_backend_knows_its_place(text: str, kind: Literal["json"], entry: str) -> None:
    assert parse_backends(text, "b", kind)[0].entry == entry


def test_a_json_text_of_too_many_values_is_refused_before_it_is_read() -> None:
    text = "[{}" + ",{}" * 2_000_001 + "]"
    with pytest.raises(ValueError, match="more than 2,000,000 values: name fewer backends"):
        read_json(text)
