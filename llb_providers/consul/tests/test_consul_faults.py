"""Whatever is not a whole, recent, valid answer is an error, and the last good answer stays."""

from __future__ import annotations

import gc
import gzip
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llb_provider_consul import ConsulProvider

from llb_core import NotReady, Provider, ProviderError
from llb_core.guard import Guard
from llb_core.source import Source
from llb_core.testing import until
from llb_providers.consul.tests.conftest import MakeProvider
from llb_providers.consul.tests.fake_consul import FakeConsul, Fault
from llb_providers.consul.tests.faults import breaks_off, drops, hangs, never_ends, says


def entry(
    *, address: object = "10.0.0.1", port: object = 80, weight: object = 1, **more: object
) -> dict[str, Any]:
    service = {"ID": "web-1", "Address": address, "Port": port, "Weights": {"Passing": weight}}
    return {"Node": {"Node": "n1", "Address": "10.1.0.1"}, "Service": service, "Checks": [], **more}


PORT = '[{"Node":{"Node":"n1"},"Service":{"ID":"web-1","Address":"10.0.0.1","Port":%s}}]'

FAULTS: dict[str, tuple[Fault, str]] = {
    "error": (says(500, "No cluster leader"), "500 No cluster leader"),
    "too many queries": (
        says(429, "Your IP is issuing too many concurrent connections"),
        "429 Your",
    ),
    "bad request": (
        says(400, 'Invalid query parameter: "ns"'),
        '400 Invalid query parameter: "ns"',
    ),
    "not found": (says(404, "no such page"), "404 no such page: does url lead to the agent"),
    "a proxy's not found": (
        says(404, "<!DOCTYPE html><title>Not here</title><body>nginx</body>"),
        r"it is a web page that answers \(404 Not here nginx\): does url lead to the agent",
    ),
    "a proxy's refusal": (
        says(403, "<html><body><h1>Forbidden</h1></body></html>"),
        r"it is a web page that answers \(Forbidden\): does url lead to the agent itself",
    ),
    "a proxy without its agent": (
        says(502, "<HTML>\n<h1>502 Bad Gateway</h1></HTML>"),
        r"it is a web page that answers \(502 502 Bad Gateway\): does url lead to the agent",
    ),
    "no content": (says(204, None), "204, which is no answer of Consul's: does url lead"),
    "redirect": (
        says(301, "", headers={"Location": "/v1/elsewhere"}),
        "301, a redirect, and none is followed .*: set url to the agent itself",
    ),
    "hang-up": (drops, "the connection ended before the answer did"),
    "cut off": (breaks_off, "the connection ended before the answer did"),
    "endless": (never_ends, "the answer is larger than 64 MiB"),
    "bomb": (
        says(200, gzip.compress(b" " * (65 << 20)), headers={"Content-Encoding": "gzip"}),
        "the answer is larger than 64 MiB",
    ),
    "bad gzip": (says(200, b"[]", headers={"Content-Encoding": "gzip"}), "is not one of Consul's"),
    "nothing": (
        says(200, None),
        r"no JSON, or not all of it \(nothing\): does url lead to the agent itself",
    ),
    "a web page": (
        says(200, "<html>Sign in</html>"),
        r"it is a web page that answers \(Sign in\): does url lead",
    ),
    "half": (says(200, '[{"Node":{"Node":"n1"}'), r"no JSON, or not all of it \(\[{\"Node\""),
    "deep": (says(200, "[" * 100_000), "is not one of Consul's"),
    "not UTF-8": (says(200, b'["\xff"]'), "is not one of Consul's"),
    "null": (
        says(200, "null"),
        "the answer is null, where Consul has a list of instances: does url",
    ),
    "an object": (says(200, {"web": []}), "the answer is an object, where Consul has a list"),
    "no index": (says(200, [], index=None), "no X-Consul-Index: it is not Consul that answers"),
    "index in words": (says(200, [], index="many"), "is not one of Consul's"),
    "numbers": (
        says(200, [1, 2]),
        "instance 0 of the answer: 1 is not a table; instance 1 of the answer: 2 is not",
    ),
    "empty": (says(200, [{}]), "instance 0 of the answer: Node: is missing"),
    "no Node": (
        says(200, [{**entry(), "Node": None}]),
        r"instance 0 of the answer \(ID web-1, address 10\.0\.0\.1\): Node: ",
    ),
    "a name": (
        says(200, [entry(address="db.example")]),
        r'web-1 on node n1: address "db\.example" is not an IP address',
    ),
    "no address": (says(200, [entry(address="", Node={"Node": "n1"})]), 'address "" is not an IP'),
    "no port": (says(200, [entry(port=0)]), "web-1 on node n1: it has no port: register it with"),
    "a large port": (says(200, [entry(port=70_000)]), "port 70000 is not one from 1 to 65535"),
    "a negative port": (
        says(200, [entry(port=-1)]),
        "port -1 is not one from 1 to 65535: register one, or set port",
    ),
    "a port in words": (
        says(200, [entry(port="http")]),
        'Service.Port: "http" is not a whole number',
    ),
    "NaN": (says(200, PORT % "NaN"), "Service.Port: NaN is not a whole number"),
    "a fraction": (says(200, PORT % "80.5"), "Service.Port: 80.5 is not a whole"),
    "a negative weight": (
        says(200, [entry(weight=-1)]),
        "web-1 on node n1: Service.Weights.Passing: -1 is less than 0",
    ),
    "a large weight": (says(200, [entry(weight=65_536)]), "Passing: 65536 is more than 65535"),
    "an unknown state": (
        says(200, [entry(Checks=[{"CheckID": "c", "Status": "fine"}])]),
        r'Checks\[0\].Status: "fine" is not',
    ),
    "many problems": (says(200, [entry(port=0)] * 9), "; and 6 more"),
    "a million": (says(200, "[" + "{}," * 999_999 + "{}]"), "1000000 instances, more than 100000"),
    "filtered": (
        says(200, [], headers={"X-Consul-Results-Filtered-By-ACLs": "true"}),
        r'may not see all instances: it takes the rules service "web" \{ policy = "read" \}',
    ),
    "old": (
        says(200, [], headers={"X-Consul-LastContact": "12000"}),
        r"without the leader for 12 s \(max_stale is 10 s\)",
    ),
}


@pytest.mark.parametrize(("fault", "sentence"), FAULTS.values(), ids=FAULTS)
def test_an_answer_that_is_none_is_an_error_that_says_why(
    fake: FakeConsul, make_for_fake: MakeProvider, fault: Fault, sentence: str
) -> None:
    fake.fault = fault
    place = rf'^{fake.url}: service "web": '

    with pytest.raises(ProviderError, match=place + ".*" + sentence) as caught:
        make_for_fake().gather_backends()

    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_an_answer_that_is_cut_off_leaves_nothing_to_the_collector_of_cycles(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    """Which looks once in a hundred thousand objects: what was read by then may be megabytes."""
    fake.fault = breaks_off
    provider = make_for_fake()
    left = []
    for times in (1, 10):
        gc.collect()
        gc.disable()
        try:
            for _ in range(times):
                with pytest.raises(ProviderError):
                    provider.gather_backends()
            left.append(gc.collect())
        finally:
            gc.enable()
    assert left[1] <= left[0] + 100


@pytest.mark.parametrize(("fault", "sentence"), FAULTS.values(), ids=FAULTS)
def test_asks_on_after_any_fault(
    fake: FakeConsul, make_for_fake: MakeProvider, fault: Fault, sentence: str
) -> None:
    provider = make_for_fake()
    fake.fault = fault
    with pytest.raises(ProviderError):
        provider.gather_backends()

    fake.fault = None

    assert len(provider.gather_backends()) == 2


def test_an_agent_that_is_not_there_is_an_error(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    provider = make_for_fake()
    fake.stop()

    with pytest.raises(ProviderError, match=rf'^{fake.url}: service "web": connection refused$'):
        provider.gather_backends()


def test_a_host_that_is_not_there_is_an_error(make_for_fake: MakeProvider) -> None:
    with pytest.raises(ProviderError, match=r"http://consul\.invalid:8500: .*[Nn]ame"):
        make_for_fake(url="consul.invalid").gather_backends()


def test_an_old_answer_counts_where_reads_are_not_stale(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.extra_headers["X-Consul-LastContact"] = "12000"

    assert len(make_for_fake(consistency="default").gather_backends()) == 2
    assert len(make_for_fake(max_stale="15s").gather_backends()) == 2


def test_a_whole_service_is_read(fake: FakeConsul, make_for_fake: MakeProvider) -> None:
    fake.fault = says(
        200, [entry(address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(10_000)]
    )

    assert len(make_for_fake().gather_backends()) == 10_000


def test_no_proxy_of_the_environment_is_asked(
    fake: FakeConsul, make_for_fake: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)

    assert len(make_for_fake().gather_backends()) == 2


@pytest.fixture
def source(fake: FakeConsul, make_for_fake: MakeProvider) -> Iterator[Source]:
    """What the core asks through, of the provider `consul`."""

    def make() -> ConsulProvider:
        return make_for_fake(timeout="1s")

    source = Source("web", "consul", make, guard=Guard(loss=1), chance=lambda: 0.0)
    yield source
    source.close()


AWAY: dict[str, Callable[[FakeConsul], None]] = {
    "down": lambda fake: fake.stop(),
    "hanging": lambda fake: setattr(fake, "fault", hangs),
    "failing": lambda fake: setattr(fake, "fault", says(500, "No cluster leader")),
    "garbage": lambda fake: setattr(fake, "fault", says(200, "<html>")),
    "filtered": lambda fake: fake.extra_headers.update(
        {"X-Consul-Results-Filtered-By-ACLs": "true"}
    ),
}


@pytest.mark.parametrize("away", AWAY.values(), ids=AWAY)
def test_never_answered_is_not_empty(
    fake: FakeConsul, source: Source, away: Callable[[FakeConsul], None]
) -> None:
    away(fake)
    source.start()
    until(lambda: source.error)

    with pytest.raises(NotReady):
        source.gather_backends()


@pytest.mark.parametrize("away", [AWAY["down"], AWAY["failing"]], ids=["down", "failing"])
def test_keeps_last_good_backends_when_consul_fails(
    fake: FakeConsul, source: Source, away: Callable[[FakeConsul], None]
) -> None:
    source.start()
    until(lambda: source.is_ready)
    until(lambda: fake.blocked)

    away(fake)
    fake.stop()
    until(lambda: source.is_stale)

    assert len(source.gather_backends()) == 2


def test_a_query_that_hangs_fails_by_its_own_timeout_and_is_not_given_up_before(
    fake: FakeConsul, make_for_fake: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Provider, "time_limit", 2.0)
    fake.fault = hangs
    told: set[str] = set()

    def is_told() -> bool:
        told.add(source.error)
        return "no answer within 2.5 s" in source.error

    source = Source("web", "consul", lambda: make_for_fake(timeout="2500ms"))
    source.start()
    until(is_told)
    source.close()
    assert not [each for each in told if "too long" in each]


def test_takes_empty_for_an_answer(fake: FakeConsul, source: Source) -> None:
    source.start()
    until(lambda: source.is_ready)

    fake.deregister("web-1")
    fake.deregister("web-2")

    until(lambda: not source.gather_backends())
    until(lambda: not source.is_stale)


def test_a_change_reaches_the_core_after_consul_came_back(fake: FakeConsul, source: Source) -> None:
    source.start()
    until(lambda: source.is_ready)
    fake.stop()
    until(lambda: source.is_stale)
    fake.start()
    until(lambda: not source.is_stale)
    until(lambda: fake.blocked)

    fake.deregister("web-1")
    until(lambda: len(source.gather_backends()) == 1)
