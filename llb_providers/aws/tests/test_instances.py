"""Backends from an Auto Scaling group, and from EC2 instances by their tags."""

from __future__ import annotations

import pytest

from llb_core import Backend, ProviderError
from llb_providers.aws.tests.answers import backend, in_order
from llb_providers.aws.tests.cloud import REGION, Cloud
from llb_providers.aws.tests.conftest import MakeProvider
from llb_providers.aws.tests.front import Call, Front, Moto, Reply, error, rewrite, small_pages


def private_addresses(cloud: Cloud, *ids: str) -> list[str]:
    described = cloud.ec2.describe_instances(InstanceIds=list(ids))
    found = {
        each["InstanceId"]: each["PrivateIpAddress"]
        for reservation in described["Reservations"]
        for each in reservation["Instances"]
    }
    return [found[each] for each in ids]


def test_the_instances_of_an_auto_scaling_group(cloud: Cloud, make: MakeProvider) -> None:
    members = private_addresses(cloud, *cloud.scaling_group("web", size=3))
    cloud.scaling_group("other", size=1)

    found = make(auto_scaling_group="web", port=8080).gather_backends()

    assert in_order(found) == in_order(backend(each) for each in members)


def test_an_auto_scaling_group_that_grows_and_shrinks(cloud: Cloud, make: MakeProvider) -> None:
    cloud.scaling_group("web", size=3)
    provider = make(auto_scaling_group="web", port=8080)

    def scaled_to(size: int) -> int:
        cloud.scaling.set_desired_capacity(AutoScalingGroupName="web", DesiredCapacity=size)
        return len(provider.gather_backends())

    assert [scaled_to(size) for size in (1, 3, 0)] == [1, 3, 0]


def test_an_instance_in_standby_drains(cloud: Cloud, make: MakeProvider) -> None:
    rests, works = cloud.scaling_group("web", size=2)
    cloud.scaling.enter_standby(
        AutoScalingGroupName="web", InstanceIds=[rests], ShouldDecrementDesiredCapacity=True
    )
    of_resting, of_working = private_addresses(cloud, rests, works)

    found = make(auto_scaling_group="web", port=8080).gather_backends()

    assert in_order(found) == in_order([backend(of_resting, draining=True), backend(of_working)])


@pytest.mark.parametrize(
    ("lifecycle", "expected"),
    [
        ("InService", [{}]),
        ("Terminating:Wait", [{"draining": True}]),
        ("Detaching", [{"draining": True}]),
        ("EnteringStandby", [{"draining": True}]),
        ("Pending", []),
        ("Pending:Wait", []),
        ("Warmed:Running", []),
        ("Terminated", []),
        ("A state of tomorrow", []),
    ],
)
def test_lifecycle_states(
    cloud: Cloud, make: MakeProvider, front: Front, lifecycle: str, expected: list[dict[str, bool]]
) -> None:
    (address,) = private_addresses(cloud, *cloud.scaling_group("web", size=1))
    told = rewrite("InService", lifecycle)

    with front.fault("DescribeAutoScalingGroups", told):
        found = make(auto_scaling_group="web", port=8080).gather_backends()

    assert found == [backend(address, **more) for more in expected]


def test_an_instance_that_its_group_finds_unhealthy_is_unhealthy(
    cloud: Cloud, make: MakeProvider
) -> None:
    (instance,) = cloud.scaling_group("web", size=1)
    cloud.scaling.set_instance_health(InstanceId=instance, HealthStatus="Unhealthy")
    (address,) = private_addresses(cloud, instance)

    found = make(auto_scaling_group="web", port=8080).gather_backends()

    assert found == [backend(address, healthy=False)]


def test_an_auto_scaling_group_that_is_not_there_is_an_error(
    cloud: Cloud, make: MakeProvider
) -> None:
    sentence = f'AWS {REGION}: there is no Auto Scaling group "web" in this account and region'
    with pytest.raises(ProviderError, match=sentence):
        make(auto_scaling_group="web", port=8080).gather_backends()


def test_a_member_that_ec2_does_not_know_is_an_error(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    (instance,) = cloud.scaling_group("web", size=1)
    provider = make(auto_scaling_group="web", port=8080)

    with (
        front.fault("DescribeInstances", rewrite(instance, "i-00000000000000000")),
        pytest.raises(ProviderError, match=f"{instance} is InService, but is not known to EC2"),
    ):
        provider.gather_backends()


def tagged(make: MakeProvider, **tags: str | list[str]) -> list[Backend]:
    return in_order(make(tags=tags, port=80).gather_backends())


def test_instances_by_all_of_their_tags(cloud: Cloud, make: MakeProvider) -> None:
    live = cloud.run(2, tags={"Role": "web", "Stage": "live"})
    canary = cloud.run(1, tags={"Role": "web", "Stage": "canary"})
    cloud.run(1, tags={"Role": "db", "Stage": "live"})
    cloud.run(1)

    assert tagged(make, Role="web", Stage="live") == in_order(
        backend(each, 80) for each in live.values()
    )
    assert tagged(make, Role=["web", "none"], Stage=["live", "canary"]) == in_order(
        backend(each, 80) for each in (live | canary).values()
    )
    assert tagged(make, Stage="can*") == [backend(each, 80) for each in canary.values()]
    assert tagged(make, Role="nobody") == []


def test_an_instance_that_stops_drains_and_one_that_has_stopped_is_none(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    (address,) = cloud.run(1, tags={"Role": "web"}).values()
    (stopped,) = cloud.run(1, tags={"Role": "web"})
    cloud.ec2.stop_instances(InstanceIds=[stopped])

    with front.fault("DescribeInstances", rewrite("<name>running</name>", "<name>stopping</name>")):
        assert tagged(make, Role="web") == [backend(address, 80, draining=True)]


def test_a_running_instance_without_an_ipv4_address_is_an_error(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    (instance,) = cloud.run(1, tags={"Role": "web"})
    without = rewrite("<privateIpAddress>.*?</privateIpAddress>", "")

    with (
        front.fault("DescribeInstances", without),
        pytest.raises(ProviderError, match=f"{instance} .* has no private IPv4 address"),
    ):
        tagged(make, Role="web")


def test_pages_are_read_to_the_last(cloud: Cloud, make: MakeProvider, front: Front) -> None:
    instances = {}
    for _ in range(11):
        instances.update(cloud.run(10, tags={"Role": "web"}))

    with front.fault("DescribeInstances", small_pages):
        found = tagged(make, Role="web")

    assert found == in_order(backend(each, 80) for each in instances.values())
    assert len(found) == 110
    assert front.count("DescribeInstances") == 3


def test_a_page_that_fails_fails_the_answer(cloud: Cloud, make: MakeProvider, front: Front) -> None:
    for _ in range(6):
        cloud.run(1, tags={"Role": "web"})

    def second_page_fails(call: Call, moto: Moto) -> Reply | None:
        if "NextToken" in call.parameters:
            return error("InternalError", status=500)(call, moto)
        return small_pages(call, moto)

    with (
        front.fault("DescribeInstances", second_page_fails),
        pytest.raises(ProviderError, match="DescribeInstances: AWS says InternalError"),
    ):
        tagged(make, Role="web")


def test_pages_that_go_in_a_circle_are_an_error(
    cloud: Cloud, make: MakeProvider, front: Front
) -> None:
    cloud.run(1, tags={"Role": "web"})
    again = rewrite(
        "</DescribeInstancesResponse>", "<nextToken>1</nextToken></DescribeInstancesResponse>"
    )

    def circle(call: Call, moto: Moto) -> Reply | None:
        return again(call, lambda body: moto(body.replace(b"NextToken=1", b"")))

    with (
        front.fault("DescribeInstances", circle),
        pytest.raises(ProviderError, match="go round in a circle"),
    ):
        tagged(make, Role="web")
