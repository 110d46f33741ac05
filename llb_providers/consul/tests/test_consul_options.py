"""The options, and the pure rules: indexes, waits and pace."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llb_provider_consul import ConsulOptions, ConsulProvider
from llb_provider_consul.blocking import Pace, longest_wait, next_index
from pydantic import ValidationError

from llb_core import parse_duration, problems
from llb_core.plugins import provider_class


def test_is_found_by_its_name() -> None:
    assert provider_class("consul") is ConsulProvider


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONSUL_HTTP_ADDR", raising=False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8500", "http://127.0.0.1:8500"),
        ("127.0.0.1:8501", "http://127.0.0.1:8501"),
        ("consul.example", "http://consul.example:8500"),
        ("https://consul.example", "https://consul.example:8501"),
        ("https://consul.example:443/", "https://consul.example:443"),
        ("http://[2001:db8::1]:8500", "http://[2001:db8::1]:8500"),
    ],
)
def test_the_agent_is_what_the_url_says(url: str, expected: str) -> None:
    assert str(ConsulOptions.model_validate({"service": "web", "url": url}).url) == expected


def test_the_agent_is_by_default_the_environments_or_this_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert str(ConsulOptions.model_validate({"service": "web"}).url) == "http://127.0.0.1:8500"

    monkeypatch.setenv("CONSUL_HTTP_ADDR", "https://consul.example:8501")

    expected = "https://consul.example:8501"
    assert str(ConsulOptions.model_validate({"service": "web"}).url) == expected


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "service: is missing"),
        ({"service": ""}, 'service: "" is not the name of a service in Consul'),
        ({"service": "../kv/x"}, 'service: "../kv/x" is not the name of a service in Consul'),
        ({"service": ".."}, 'service: ".." is not the name of a service in Consul'),
        ({"service": 5}, "service: 5 is not the name of a service in Consul"),
        ({"servce": "web"}, "servce: unknown key (did you mean service?)"),
        (
            {"url": "ftp://x"},
            'url: "ftp://x" is not the address of a Consul agent, like "http://127.0.0.1:8500"',
        ),
        (
            {"url": "http://x/consul"},
            'url: "http://x/consul" is not the address of a Consul agent, like "http://127.0.0.1',
        ),
        (
            {"url": "x:port"},
            'url: "x:port" is not the address of a Consul agent, like "http://127.0.0.1:8500"',
        ),
        (
            {"url": "127.0.0.1:0"},
            'url: "127.0.0.1:0" is not the address of a Consul agent, like "http://127.0.0.1:8500"',
        ),
        (
            {"url": "unix:///run/consul.sock"},
            'url: "unix:///run/consul.sock" is a Unix socket: give the agent\'s TCP address',
        ),
        (
            {"url": "http://user:hunter2@x"},
            "url: a name and password in the URL are not supported: use an ACL token",
        ),
        ({"consistency": "strong"}, 'consistency: "strong" is not '),
        ({"wait": "11m"}, 'wait: "11m" is not a duration from "1s" to "10m"'),
        ({"wait": "soon"}, 'wait: "soon" is not a duration, like "500ms", "5s", "1m" or "2h"'),
        ({"timeout": 60}, 'timeout: 60 is not a duration from "100ms" to "25s"'),
        ({"port": 0}, "port: 0 is less than 1"),
        ({"tags": 5}, "tags: 5 is not a list"),
        ({"warning": "ignore"}, 'warning: "ignore" is not '),
        ({"token": "a", "token_file": "b"}, "token and token_file are given: give one of them"),
        (
            {"ca_file": "ca.pem"},
            "ca_file go with an https:// url only, not http://127.0.0.1:8500",
        ),
        ({"url": "https://x", "key_file": "k.pem"}, "key_file goes with cert_file"),
    ],
    ids=str,
)
def test_an_option_that_is_wrong_is_an_error_that_names_it(
    options: dict[str, Any], sentence: str
) -> None:
    document = {"service": "web", **options} if options else {}

    with pytest.raises(ValidationError) as caught:
        ConsulOptions.model_validate(document)

    (line,) = problems(caught.value, document, model=ConsulOptions)
    assert line.startswith(sentence)
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("sent", "returned", "following"),
    [(0, 7, 7), (7, 7, 7), (7, 9, 9), (9, 7, 0), (9, 0, 0), (0, 0, 1), (1, 0, 0), (0, -5, 0)],
)
def test_the_next_index(sent: int, returned: int, following: int) -> None:
    assert next_index(sent, returned) == following


@given(limit=st.floats(0, 700), reserve=st.floats(0.1, 25))
def test_consul_has_answered_within_the_limit(limit: float, reserve: float) -> None:
    wait = longest_wait(limit, reserve)

    if wait is None:
        assert limit < 1
    else:
        seconds = int(wait.removesuffix("ms")) / 1000
        assert 0.25 <= seconds * 17 / 16 <= limit - min(reserve, limit / 2) + 1e-9


def test_asks_at_once_until_there_were_too_many() -> None:
    pace = Pace(burst=3, per_second=2)

    assert [pace.delay(10.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert pace.delay(100.0) == 0.0


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_never_asks_faster_than_it_may(pauses: list[float]) -> None:
    pace, now, asked = Pace(burst=4, per_second=2), 0.0, []
    for pause in pauses:
        now += pause
        now += pace.delay(now)
        asked.append(now)

    for first, at in enumerate(asked):
        within = [each for each in asked[first:] if each <= at + 5]
        assert len(within) <= 4 + 5 * 2 + 1


@pytest.mark.parametrize("name", ["max_stale", "wait", "timeout"])
def test_the_limits_of_a_duration_that_are_documented_are_kept(name: str) -> None:
    extra = ConsulOptions.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    word, _, limits = str(extra["type"]).partition(", ")
    shortest, _, longest = limits.partition(" to ")

    for limit in (shortest, longest):
        assert getattr(ConsulOptions(service="web", **{name: limit}), name) > 0
    for beyond in (parse_duration(shortest) - 0.001, parse_duration(longest) * 2):
        with pytest.raises(ValidationError, match="is not a duration from"):
            ConsulOptions(service="web", **{name: beyond})
    assert word == "duration"
