"""Backends from a target group: which, at which addresses, and in which state."""

from __future__ import annotations

import ipaddress

import pytest
from llb_provider_aws import instances

from llb_core import ProviderError
from llb_providers.aws.tests.answers import backend, in_order
from llb_providers.aws.tests.cloud import REGION, Cloud, addresses
from llb_providers.aws.tests.conftest import MakeProvider
from llb_providers.aws.tests.front import Call, Front, Moto, Reply, error, rewrite, well


def has(state: str, reason: str = "") -> str:
    return f"<State>{state}</State><Reason>{reason}</Reason>"


@pytest.fixture
def web(cloud: Cloud) -> str:
    """A target group of one address."""
    group = cloud.target_group(kind="ip")
    cloud.register(group, "10.0.1.1")
    return group


@pytest.mark.parametrize("by", ["name", "arn"])
def test_ip_targets_are_taken_as_they_are(cloud: Cloud, make: MakeProvider, by: str) -> None:
    group = cloud.target_group("web", kind="ip")
    cloud.register(group, "10.0.1.1", port=80)
    cloud.register(group, "10.0.1.2", port=8080)

    provider = make(target_group="web" if by == "name" else group)

    assert in_order(provider.gather_backends()) == [
        backend("10.0.1.1", 80, healthy=True),
        backend("10.0.1.2", 8080, healthy=True),
    ]


def test_instance_targets_have_their_private_addresses(cloud: Cloud, make: MakeProvider) -> None:
    instances = cloud.run(3)
    cloud.register(cloud.target_group(), *instances)

    found = make(target_group="web").gather_backends()

    assert in_order(found) == in_order(backend(each, healthy=True) for each in instances.values())


def test_the_region_of_an_arn_is_used(
    cloud: Cloud, web: str, make: MakeProvider, front: Front
) -> None:
    make(target_group=web, region=None).gather_backends()

    assert {call.region for call in front.calls} == {REGION}


def test_addresses_are_asked_for_once(cloud: Cloud, make: MakeProvider, front: Front) -> None:
    group = cloud.target_group()
    cloud.register(group, *cloud.run(2))
    provider = make(target_group="web")
    provider.gather_backends()
    (new,) = cloud.run(1)
    cloud.register(group, new)

    found = provider.gather_backends()
    provider.gather_backends()

    assert len(found) == 3
    first, second = front.named("DescribeInstances")
    assert "Filter.1.Value.2" in first.parameters
    assert [value for key, value in second.parameters.items() if "Value" in key] == [new]
    assert front.count("DescribeTargetGroups") == 1


def test_addresses_are_asked_for_again_after_ten_minutes(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    cloud.register(cloud.target_group(), *cloud.run(1))
    now = 0.0
    provider = make({"clock": lambda: now}, target_group="web")
    provider.gather_backends()

    now = 601.0
    provider.gather_backends()

    assert front.count("DescribeInstances") == 2


def test_a_group_without_targets_has_no_backends(cloud: Cloud, make: MakeProvider) -> None:
    cloud.target_group()

    assert make(target_group="web").gather_backends() == []


def test_the_last_target_can_go(cloud: Cloud, web: str, make: MakeProvider) -> None:
    provider = make(target_group="web")
    assert len(provider.gather_backends()) == 1

    cloud.elb.deregister_targets(TargetGroupArn=web, Targets=[{"Id": "10.0.1.1"}])

    assert provider.gather_backends() == []


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("healthy", "", {"healthy": True}),
        ("unhealthy", "Target.FailedHealthChecks", {"healthy": False}),
        ("initial", "Elb.RegistrationInProgress", {"healthy": False}),
        ("draining", "Target.DeregistrationInProgress", {"draining": True}),
        ("unhealthy.draining", "Target.DeregistrationInProgress", {"draining": True}),
        ("unused", "Target.NotInUse", {"healthy": None}),
        ("unavailable", "Target.HealthCheckDisabled", {"healthy": None}),
        ("a state of tomorrow", "Target.Whatever", {"healthy": None}),
    ],
)
def test_states_by_default(
    web: str, make: MakeProvider, front: Front, state: str, reason: str, expected: dict[str, bool]
) -> None:
    with front.fault("DescribeTargetHealth", rewrite("<State>healthy</State>", has(state, reason))):
        found = make(target_group="web").gather_backends()

    assert found == [backend("10.0.1.1", **expected)]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("healthy", [backend("10.0.1.1", healthy=True)]),
        ("check", [backend("10.0.1.1")]),
        ("unhealthy", [backend("10.0.1.1", healthy=False)]),
        ("drain", [backend("10.0.1.1", draining=True)]),
        ("omit", []),
    ],
)
def test_states_as_configured(
    web: str, make: MakeProvider, front: Front, word: str, expected: object
) -> None:
    provider = make(target_group="web", states={"initial": word})

    with front.fault("DescribeTargetHealth", rewrite("<State>healthy</State>", has("initial"))):
        assert provider.gather_backends() == expected


def test_a_stopped_instance_is_no_backend(cloud: Cloud, make: MakeProvider) -> None:
    stays, stops = instances = cloud.run(2)
    cloud.register(cloud.target_group(), *instances)
    cloud.ec2.stop_instances(InstanceIds=[stops])

    found = make(target_group="web", states={"unused": "healthy"}).gather_backends()

    assert found == [backend(instances[stays], healthy=True)]


def test_a_terminated_instance_that_is_still_listed_is_no_backend(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    stays, goes = instances = cloud.run(2)
    cloud.register(cloud.target_group(), *instances)
    gone = rewrite(
        rf"(?s)(<instanceId>{goes}</instanceId>.*?<name>)\w+(</name>.*?)<privateIpAddress>.*?</privateIpAddress>",
        r"\1terminated\2",
    )

    with front.fault("DescribeInstances", gone):
        found = make(target_group="web").gather_backends()

    assert found == [backend(instances[stays], healthy=True)]


def test_a_healthy_target_that_ec2_does_not_know_is_an_error(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    (instance,) = cloud.run(1)
    cloud.register(cloud.target_group(), instance)
    provider = make(target_group="web")

    with (
        front.fault("DescribeInstances", rewrite(instance, "i-00000000000000000")),
        pytest.raises(ProviderError, match=f"{instance} is healthy, but is not among") as caught,
    ):
        provider.gather_backends()
    assert 'target group "web"' in str(caught.value)


def test_of_two_targets_at_one_address_the_better_counts(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    old, new = cloud.run(2).items()
    cloud.register(cloud.target_group(), old[0], new[0])
    ends = rewrite(
        rf"(?s)(<Id>{old[0]}</Id>.*?)<State>healthy</State>",
        rf"\1{has('draining', 'Target.DeregistrationInProgress')}",
    )
    provider = make(target_group="web")

    with (
        front.fault("DescribeTargetHealth", ends),
        front.fault("DescribeInstances", rewrite(old[1] + "<", new[1] + "<")),
    ):
        found = provider.gather_backends()

    assert found == [backend(new[1], healthy=True)]


def test_a_group_of_ipv6_has_the_instances_ipv6_addresses(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    cloud.register(cloud.target_group(IpAddressType="ipv6"), *cloud.run(1))
    with_ipv6 = rewrite("<instanceType>", "<ipv6Address>2001:db8::7</ipv6Address><instanceType>")

    with front.fault("DescribeInstances", with_ipv6):
        found = make(target_group="web").gather_backends()

    assert [each.endpoint.address for each in found] == [ipaddress.ip_address("2001:db8::7")]


@pytest.mark.parametrize(("kind", "reason"), [("lambda", "a function"), ("alb", "addresses")])
def test_groups_of_other_kinds_are_refused_with_the_reason(
    cloud: Cloud, make: MakeProvider, kind: str, reason: str
) -> None:
    cloud.target_group(kind=kind)

    with pytest.raises(ProviderError, match=f'"web" is of the kind {kind}: .*{reason}'):
        make(target_group="web").gather_backends()


@pytest.mark.parametrize(
    "group",
    [
        "nobody",
        f"arn:aws:elasticloadbalancing:{REGION}:123456789012:targetgroup/nobody/0123456789abcdef",
    ],
    ids=["name", "arn"],
)
def test_a_group_that_is_not_there_is_an_error(
    cloud: Cloud, make: MakeProvider, group: str
) -> None:
    with pytest.raises(ProviderError, match=f'AWS {REGION}: there is no target group "{group}"'):
        make(target_group=group).gather_backends()


def test_a_group_made_anew_under_its_name_is_found(
    cloud: Cloud, web: str, make: MakeProvider
) -> None:
    provider = make(target_group="web")
    provider.gather_backends()
    cloud.elb.delete_target_group(TargetGroupArn=web)
    cloud.register(cloud.target_group(kind="ip"), "10.0.1.2")

    assert provider.gather_backends() == [backend("10.0.1.2", healthy=True)]


def test_a_group_that_is_deleted_is_an_error_and_not_empty(
    cloud: Cloud, web: str, make: MakeProvider
) -> None:
    provider = make(target_group="web")
    provider.gather_backends()
    cloud.elb.delete_target_group(TargetGroupArn=web)

    for _ in range(2):
        with pytest.raises(ProviderError, match='there is no target group "web"'):
            provider.gather_backends()


def test_1500_ip_targets(cloud: Cloud, make: MakeProvider) -> None:
    wanted = addresses(1500)
    cloud.register(cloud.target_group(kind="ip"), *wanted)

    found = make(target_group="web").gather_backends()

    assert in_order(found) == in_order(backend(each, healthy=True) for each in wanted)


def test_a_slow_ec2_is_asked_for_the_rest_next_time(
    cloud: Cloud, make: MakeProvider, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "_BATCH", 2)
    started = cloud.run(5)
    cloud.register(cloud.target_group(), *started)
    now = [1000.0]

    def takes_20_seconds(call: Call, moto: Moto) -> Reply | None:
        now[0] += 20
        return well(call, moto)

    provider = make({"clock": lambda: now[0]}, target_group="web")
    with front.fault("DescribeInstances", takes_20_seconds):
        with pytest.raises(
            ProviderError, match="DescribeInstances: 4 of 5 instances are known after 40 s"
        ):
            provider.gather_backends()
        found = provider.gather_backends()

    assert in_order(found) == in_order(backend(each, healthy=True) for each in started.values())
    assert front.count("DescribeInstances") == 3


def test_what_is_known_of_instances_outlives_a_call_that_fails(
    cloud: Cloud, make: MakeProvider, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "_BATCH", 2)
    cloud.register(cloud.target_group(), *cloud.run(3))
    provider = make(target_group="web")

    def second_fails(call: Call, moto: Moto) -> Reply | None:
        is_second = front.count("DescribeInstances") == 2
        return (error("InternalError", status=500) if is_second else well)(call, moto)

    with front.fault("DescribeInstances", second_fails):
        with pytest.raises(ProviderError, match="InternalError"):
            provider.gather_backends()
        assert len(provider.gather_backends()) == 3

    assert front.count("DescribeInstances") == 3


def test_201_instances_in_batches(cloud: Cloud, make: MakeProvider, front: Front) -> None:
    started = cloud.run(201)
    cloud.register(cloud.target_group(), *started)
    provider = make(target_group="web")

    found = provider.gather_backends()

    assert in_order(found) == in_order(backend(each, healthy=True) for each in started.values())
    assert front.count("DescribeInstances") == 2
    assert provider.gather_backends() == found
    assert front.count("DescribeInstances") == 2
