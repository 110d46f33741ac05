"""Backends from the instances of an Auto Scaling group, without a target group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llb_core import Backend, Endpoint, ProviderError
from llb_provider_aws.connection import Answer, Connection
from llb_provider_aws.faults import unreadable
from llb_provider_aws.instances import Instances
from llb_provider_aws.states import Treatment, make_backend, of_member, one_each

_OPERATION = "DescribeAutoScalingGroups"


@dataclass(frozen=True, slots=True)
class Member:
    """An instance as its group states it."""

    id: str
    lifecycle: str
    is_healthy: bool


class AutoScalingBackends:
    """The backends of an Auto Scaling group: its instances' IPv4 addresses, at one port."""

    calls: ClassVar[int] = 2
    """The group, and instances."""

    def __init__(self, connection: Connection, instances: Instances, group: str, port: int) -> None:
        self._connection = connection
        self._instances = instances
        self._group = group
        self._port = port

    def gather(self) -> list[Backend]:
        """Return all of them; raise ProviderError."""
        treated = [
            (member, treatment)
            for member in self._members()
            if (treatment := of_member(member.lifecycle, is_healthy=member.is_healthy))
            is not Treatment.OMIT
        ]
        instances = self._instances.by_id(member.id for member, _ in treated)
        backends = []
        for member, treatment in treated:
            instance = instances.get(member.id)
            address = instance.addresses.get(4) if instance else None
            if address is not None:
                entry = f"instance {member.id} of Auto Scaling group {self._group}"
                backends.append(make_backend(Endpoint(address, self._port), treatment, entry))
            elif treatment is Treatment.CHECK and (instance is None or instance.state == "running"):
                lacks = "has no private IPv4 address" if instance else "is not known to EC2"
                raise ProviderError(
                    f'Auto Scaling group "{self._group}": {member.id} is {member.lifecycle}, but '
                    f"{lacks} ({self._connection.place}, DescribeInstances)"
                )
        return one_each(backends)

    def _members(self) -> list[Member]:
        groups = self._connection.call(
            "autoscaling", _OPERATION, "AutoScalingGroups", AutoScalingGroupNames=[self._group]
        )
        if not groups:
            raise ProviderError(
                f'{self._connection.place}: there is no Auto Scaling group "{self._group}" in this '
                "account and region"
            )
        members = groups[0].get("Instances")
        if not isinstance(members, list):
            raise unreadable(self._connection.place, _OPERATION, lacks="Instances")
        return [self._parsed(number, member) for number, member in enumerate(members)]

    def _parsed(self, number: int, answer: Answer) -> Member:
        for key in ("InstanceId", "LifecycleState", "HealthStatus"):
            if not answer.get(key):
                whose = f"instance {answer.get('InstanceId') or number}"
                raise unreadable(self._connection.place, _OPERATION, lacks=key, whose=whose)
        return Member(
            id=str(answer["InstanceId"]),
            lifecycle=str(answer["LifecycleState"]),
            is_healthy=str(answer["HealthStatus"]).lower() == "healthy",
        )
