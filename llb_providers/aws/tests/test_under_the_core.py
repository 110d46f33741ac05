"""The provider as the core runs it: never answered, failing now, and empty are three things."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest
from llb_provider_aws import AwsProvider

from llb_core import NotReady, Provider
from llb_core.answer import check_seconds
from llb_core.source import Source
from llb_core.testing import MemoryBalancer, until
from llb_providers.aws.tests.answers import backend
from llb_providers.aws.tests.cloud import Cloud
from llb_providers.aws.tests.conftest import MakeProvider
from llb_providers.aws.tests.front import EMPTY, Fault, Front, body, error, hang

Start = Callable[[Callable[[], AwsProvider]], Source]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a source; it is closed afterwards."""
    sources: list[Source] = []

    def start(make: Callable[[], AwsProvider]) -> Source:
        sources.append(Source("web", "aws", make))
        sources[-1].start()
        return sources[-1]

    yield start
    for source in sources:
        source.close()


@pytest.fixture
def web(cloud: Cloud) -> str:
    """A target group of one address."""
    group = cloud.target_group(kind="ip")
    cloud.register(group, "10.0.1.1")
    return group


def test_one_that_never_answered_is_not_empty(
    web: str, make: MakeProvider, front: Front, start: Start
) -> None:
    with front.fault("DescribeTargetHealth", error("AccessDenied", status=403)):
        source = start(lambda: make(target_group="web"))
        until(lambda: "DescribeTargetHealth" in source.error)

        with pytest.raises(NotReady, match="no policy allows elasticloadbalancing:DescribeTarget"):
            source.gather_backends()


def test_one_that_fails_now_keeps_its_last_answer_and_mends(
    web: str, cloud: Cloud, make: MakeProvider, front: Front, start: Start
) -> None:
    source = start(lambda: make(target_group="web", refresh=1, read_timeout="300ms"))
    until(lambda: source.is_ready)

    with front.fault("DescribeTargetHealth", hang):
        until(lambda: "no answer in time" in source.error)
        assert source.is_stale
        assert source.gather_backends() == (backend("10.0.1.1", healthy=True),)
        cloud.register(web, "10.0.1.2")

    until(lambda: len(source.gather_backends()) == 2)
    until(lambda: not source.is_stale)  # A busy machine answers too late now and then.


def test_a_call_that_hangs_fails_by_its_own_timeout_and_is_not_given_up_before(
    web: str, make: MakeProvider, front: Front, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so the log has one advice, and what was learnt is kept."""
    monkeypatch.setattr(Provider, "time_limit", 0.1)
    told: set[str] = set()

    def is_told() -> bool:
        told.add(source.error)
        return "no answer in time" in source.error

    with front.fault("DescribeTargetHealth", hang):
        source = start(lambda: make(target_group="web", read_timeout="500ms"))
        until(is_told)

    assert not [each for each in told if "too long" in each]


@pytest.mark.parametrize(
    "way",
    [
        {"target_group": "web"},
        {"auto_scaling_group": "a", "port": 80},
        {"tags": {"a": "b"}, "port": 80},
    ],
)
def test_the_longest_that_its_options_allow_is_a_limit_that_the_core_takes(
    make: MakeProvider, way: dict[str, object]
) -> None:
    patient = {"connect_timeout": "60s", "read_timeout": "120s", "max_attempts": 10}
    for options, least in (({}, 11.0), (patient, 1800.0)):
        limit = check_seconds("time_limit", make(**way, **options).time_limit)
        assert limit > Provider.time_limit + least


def test_one_that_says_none_has_none(
    web: str, cloud: Cloud, make: MakeProvider, start: Start
) -> None:
    source = start(lambda: make(target_group="web", refresh=1))
    until(lambda: source.is_ready)

    cloud.elb.deregister_targets(TargetGroupArn=web, Targets=[{"Id": "10.0.1.1"}])

    until(lambda: not source.gather_backends())
    assert not source.error


def test_a_source_closes_at_once_while_aws_hangs(
    web: str, make: MakeProvider, front: Front, start: Start
) -> None:
    with front.fault("DescribeTargetGroups", hang):
        source = start(lambda: make(target_group="web", read_timeout="60s"))
        until(lambda: front.count("DescribeTargetGroups"))

        source.close(timeout=0.1)

    with pytest.raises(NotReady):
        source.gather_backends()


def target(id: str = "10.0.1.7", port: object = 80) -> str:  # noqa: A002 - AWS's name for it
    return (
        f"<member><Target><Id>{id}</Id><Port>{port}</Port></Target>"
        "<TargetHealth><State>healthy</State></TargetHealth></member>"
    )


GARBAGE = "DescribeTargetHealth of target group web: what came is no answer of AWS"
GOOD = target("10.0.1.1", 8080)
BAD = {
    "a name": (target("web.example"), 'target group "web": "web.example" is not an IP address: re'),
    "a port in words": (
        target(port="NaN"),
        '{GARBAGE} (target 10.0.1.7 has port "NaN", not one from 1 to 65535): does endpoint_url, o',
    ),
    "a long number": (target(port="9" * 5000), '{GARBAGE} (target 10.0.1.7 has port "99999999'),
    "no port": (target().replace("<Port>80</Port>", ""), "(target 10.0.1.7 has no Port)"),
    "port 0": (target(port=0), "{NAMED}: 10.0.1.7 has port 0, not one from 1 to 65535"),
    "port 70000": (target(port=70000), "{NAMED}: 10.0.1.7 has port 70000, not one from 1 to 65535"),
    "IPv6": (target("2001:db8::7"), "2001:db8::7]:80 is IPv6, and the service is IPv4: leave it"),
    "multicast": (target("224.0.0.7"), "{NAMED}: 224.0.0.7 is not the address of one host"),
    "broadcast": (target("10.0.1.255"), "{NAMED}: 10.0.1.255 is not the address of one host on a"),
    "ours": (target("10.0.1.254"), "{NAMED}: 10.0.1.254:80 is the balancer's own (loadbalancer.s"),
    "elsewhere": (target("10.9.0.7"), "{NAMED}: 10.9.0.7:80 is in no network of loadbalancer."),
    "too many": (
        "".join(target(f"10.0.1.{2 + port % 200}", port) for port in range(1, 10_001)),
        "target 10.0.1.2 of target group web: more than 10000 backends for one service: have",
    ),
}


@pytest.mark.parametrize(("bad", "fault"), BAD.values(), ids=BAD)
def test_bad_input_names_the_target_and_the_last_good_answer_stays(
    web: str, front: Front, caplog: pytest.LogCaptureFixture, bad: str, fault: str
) -> None:
    def said(targets: str) -> Fault:
        listed = f"<TargetHealthDescriptions>{targets}</TargetHealthDescriptions>"
        return body(EMPTY % listed.encode())

    def said_by_llb() -> list[str]:
        return [each.message for each in caplog.records if each.name.startswith("llb_core.")]

    named = re.search("<Id>(.*?)</Id>", bad)
    assert named is not None
    front.faults["DescribeTargetHealth"] = said(GOOD)
    cidrs = [ip_network("10.0.1.0/24")]
    with MemoryBalancer(families=frozenset({4}), backend_cidrs=cidrs) as balancer:
        options = {"target_group": web, "endpoint_url": front.url, "max_attempts": 1}
        source = balancer.add(AwsProvider, options, refresh=0.05)
        source.ours = {ip_address("10.0.1.254"): "loadbalancer.snat_addresses"}
        balancer.turn_until(balancer.active, limit=30)
        good = balancer.active()
        front.faults["DescribeTargetHealth"] = said(GOOD + bad)
        until(lambda: source.error and said_by_llb(), limit=30)
        assert not balancer.turn().plan
        assert balancer.active() == good
        (message,) = said_by_llb()
        assert message.startswith("web: provider aws: ")
        expected = fault.format(NAMED=f"target {named[1]} of target group web", GARBAGE=GARBAGE)
        assert expected in message
        assert "; its last answer stays (1 backend, " in message
        front.faults["DescribeTargetHealth"] = said("")
        balancer.turn_until(lambda: not balancer.active(), limit=30)
