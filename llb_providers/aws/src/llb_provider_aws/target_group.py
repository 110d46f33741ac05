"""Backends from a target group of Elastic Load Balancing (v2)."""

from __future__ import annotations

import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llb_core import Backend, Endpoint, ProviderError
from llb_provider_aws.arns import is_arn
from llb_provider_aws.connection import Answer, Connection
from llb_provider_aws.faults import AwsError, unreadable
from llb_provider_aws.instances import Instances
from llb_provider_aws.states import Treatment, make_backend, of_target, one_each

_ELB = "elbv2"
_HEALTH = "DescribeTargetHealth"
_NOT_FOUND = "TargetGroupNotFound"
_REFUSED = {
    "lambda": "its target is a function, which has no address that packets could be sent to",
    "alb": "its target is an Application Load Balancer, whose addresses AWS changes at will: name "
    "the target group behind that load balancer",
}
_IN_SERVICE = ("healthy", "unavailable")
"""States in which AWS sends traffic to a target, so that it must have an address."""


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """A target group; `kind` is `instance` or `ip`, `family` 4 or 6."""

    arn: str
    name: str
    kind: str
    family: int


@dataclass(frozen=True, slots=True)
class Target:
    """A target as DescribeTargetHealth states it."""

    id: str
    port: int
    state: str
    reason: str


class TargetGroupBackends:
    """The backends of a target group, by ARN or name."""

    calls: ClassVar[int] = 5
    """The group and its targets, both again for one that was made anew, and instances."""

    def __init__(
        self,
        connection: Connection,
        instances: Instances,
        wanted: str,
        treatments: Mapping[str, Treatment],
    ) -> None:
        self._connection = connection
        self._instances = instances
        self._wanted = wanted
        self._treatments = treatments
        self._group: TargetGroup | None = None

    def gather(self) -> list[Backend]:
        """Return all of them; raise ProviderError."""
        is_remembered = self._group is not None
        try:
            targets = self._targets()
        except AwsError as error:
            if error.code != _NOT_FOUND:
                raise
            self._group = None
            if not is_remembered:
                raise self._missing() from None
            targets = self._targets()  # one of that name may have been made anew
        treated = [
            (target, treatment)
            for target in targets
            if (treatment := of_target(target.state, target.reason, self._treatments))
            is not Treatment.OMIT
        ]
        group = self._found()
        if group.kind == "ip":
            backends = [
                make_backend(self._endpoint(group, target), treatment, _named(group, target))
                for target, treatment in treated
            ]
        else:
            backends = self._of_instances(group, treated)
        return one_each(backends)

    def _found(self) -> TargetGroup:
        if self._group is None:
            wanted: dict[str, Any] = {
                "TargetGroupArns" if is_arn(self._wanted) else "Names": [self._wanted]
            }
            try:
                groups = self._connection.call(
                    _ELB,
                    "DescribeTargetGroups",
                    "TargetGroups",
                    about=f" of target group {self._wanted}",
                    **wanted,
                )
            except AwsError as error:
                raise (self._missing() if error.code == _NOT_FOUND else error) from None
            if not groups:
                raise self._missing()
            self._group = self._parsed_group(groups[0])
        return self._group

    def _parsed_group(self, answer: Answer) -> TargetGroup:
        arn, name, kind = (
            str(answer.get(key) or "")
            for key in ("TargetGroupArn", "TargetGroupName", "TargetType")
        )
        if kind in _REFUSED:
            raise ProviderError(f'target group "{name}" is of the kind {kind}: {_REFUSED[kind]}')
        if not arn or kind not in ("instance", "ip"):
            lacks = "TargetType instance or ip" if arn else "TargetGroupArn"
            raise unreadable(self._connection.place, "DescribeTargetGroups", lacks=lacks)
        return TargetGroup(arn, name, kind, 6 if answer.get("IpAddressType") == "ipv6" else 4)

    def _targets(self) -> list[Target]:
        """Ask for all targets at once: AWS has no pages here."""
        group = self._found()
        answers = self._connection.call(
            _ELB,
            _HEALTH,
            "TargetHealthDescriptions",
            about=f" of target group {group.name}",
            find_wrong=_wrong_port,
            TargetGroupArn=group.arn,
        )
        return [self._parsed_target(number, answer) for number, answer in enumerate(answers)]

    def _parsed_target(self, number: int, answer: Answer) -> Target:
        target, health = answer.get("Target") or {}, answer.get("TargetHealth") or {}
        for part, key in ((target, "Id"), (target, "Port"), (health, "State")):
            if part.get(key) is None:
                raise unreadable(
                    self._connection.place,
                    _HEALTH,
                    about=f" of target group {self._found().name}",
                    lacks=key,
                    whose=f"target {target.get('Id') or number}",
                )
        return Target(
            str(target["Id"]), target["Port"], str(health["State"]), str(health.get("Reason"))
        )

    def _of_instances(
        self, group: TargetGroup, treated: Sequence[tuple[Target, Treatment]]
    ) -> list[Backend]:
        instances = self._instances.by_id(target.id for target, _ in treated)
        backends = []
        for target, treatment in treated:
            instance = instances.get(target.id)
            address = instance.addresses.get(group.family) if instance else None
            if address is not None:
                endpoint = Endpoint(address, target.port)
                backends.append(make_backend(endpoint, treatment, _named(group, target)))
            elif target.state in _IN_SERVICE and (instance is None or instance.state == "running"):
                lacks = f"has no private IPv{group.family} address"
                if instance is None:
                    lacks = "is not among this account's instances"
                raise ProviderError(
                    f'target group "{group.name}": {target.id} is {target.state}, but {lacks} '
                    f"({self._connection.place}, DescribeInstances)"
                )
        return backends

    def _endpoint(self, group: TargetGroup, target: Target) -> Endpoint:
        try:
            return Endpoint(ipaddress.ip_address(target.id), target.port)
        except ValueError:
            raise ProviderError(
                f'target group "{group.name}": "{target.id:.60}" is not an IP address: register '
                "the target by one"
            ) from None

    def _missing(self) -> ProviderError:
        return ProviderError(
            f'{self._connection.place}: there is no target group "{self._wanted}" in this account '
            "and region"
        )


def _named(group: TargetGroup, target: Target) -> str:
    return f"target {target.id} of target group {group.name}"


def _wrong_port(answer: bytes) -> str:
    """Return which target of an answer has a port that is no number, and stops it from being
    parsed; empty where none has."""
    try:
        root = ET.fromstring(answer)
    except ET.ParseError:
        return ""
    for target in root.iterfind(".//{*}Target"):
        port = target.findtext("{*}Port")
        try:
            int(port or "0")
        except ValueError:  # Also of one of thousands of digits.
            name = target.findtext("{*}Id")
            return f'target {name} has port "{port:.20}", not one from 1 to 65535'
    return ""
