"""Put things into moto's AWS, as an operator would: instances, target groups, scaling groups."""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import Any

REGION = "eu-central-1"


class Cloud:
    """An AWS account in one region, with the networks that every account begins with."""

    def __init__(self, url: str, client: Callable[[str], Any]) -> None:
        self._url = url
        self._made_subnet = ""
        self._placed: dict[str, str] = {}
        self.ec2, self.elb, self.scaling = client("ec2"), client("elbv2"), client("autoscaling")

    def reset(self) -> None:
        """Forget everything."""
        urllib.request.urlopen(f"{self._url}/moto-api/reset", data=b"").close()
        self._made_subnet, self._placed = "", {}

    def run(
        self, count: int = 1, tags: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, str]:
        """Start instances; return their private addresses by their ids."""
        written = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
        specifications = [{"ResourceType": "instance", "Tags": written}] if written else []
        answer = self.ec2.run_instances(
            ImageId="ami-12345678",
            InstanceType="t3.micro",
            MinCount=count,
            MaxCount=count,
            TagSpecifications=specifications,
            **more,
        )
        return {each["InstanceId"]: each["PrivateIpAddress"] for each in answer["Instances"]}

    def tag_only(self, addresses: Iterable[str], key: str, value: str) -> None:
        """Have the instances at these private addresses (of 10.0.0.0/18), and no others, bear a
        tag; those that aren't there yet are started."""
        wanted = set(addresses)
        tags = [{"Key": key, "Value": value}]
        if surplus := [each for address, each in self._placed.items() if address not in wanted]:
            self.ec2.delete_tags(Resources=surplus, Tags=tags)
        for address in wanted - self._placed.keys():
            (self._placed[address],) = self.run(
                1, PrivateIpAddress=address, SubnetId=self._subnet()
            )
        if wanted:
            self.ec2.create_tags(Resources=[self._placed[each] for each in wanted], Tags=tags)

    def _subnet(self) -> str:
        if not self._made_subnet:
            network = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
            made = self.ec2.create_subnet(VpcId=network, CidrBlock="10.0.0.0/18")
            self._made_subnet = str(made["Subnet"]["SubnetId"])
        return self._made_subnet

    def target_group(self, name: str = "web", kind: str = "instance", **more: Any) -> str:
        """Make a target group; return its ARN."""
        if kind != "lambda":
            network = self.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
            more = {"Protocol": "TCP", "Port": 80, "VpcId": network} | more
        answer = self.elb.create_target_group(Name=name, TargetType=kind, **more)
        return str(answer["TargetGroups"][0]["TargetGroupArn"])

    def register(self, group: str, *targets: str, port: int = 8080) -> None:
        """Put targets into a group."""
        self.elb.register_targets(
            TargetGroupArn=group, Targets=[{"Id": each, "Port": port} for each in targets]
        )

    def empty(self, group: str) -> None:
        """Take all targets out of a group."""
        described = self.elb.describe_target_health(TargetGroupArn=group)
        targets = [each["Target"] for each in described["TargetHealthDescriptions"]]
        if targets:
            self.elb.deregister_targets(
                TargetGroupArn=group, Targets=[{"Id": each["Id"]} for each in targets]
            )

    def scaling_group(self, name: str = "web", size: int = 2) -> list[str]:
        """Make an Auto Scaling group; return the ids of its instances."""
        self.scaling.create_launch_configuration(
            LaunchConfigurationName=f"{name}-launch",
            ImageId="ami-12345678",
            InstanceType="t3.micro",
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName=f"{name}-launch",
            MinSize=0,
            MaxSize=size,
            DesiredCapacity=size,
            AvailabilityZones=[f"{REGION}a"],
        )
        answer = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        return [each["InstanceId"] for each in answer["AutoScalingGroups"][0]["Instances"]]


def addresses(count: int) -> list[str]:
    """Return so many addresses of a network."""
    first = ipaddress.IPv4Address("10.0.64.1")
    return [str(first + place) for place in range(count)]
