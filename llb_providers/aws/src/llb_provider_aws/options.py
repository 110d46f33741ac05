"""The options of the provider `aws`: the keys of its table in llb.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

from llb_core import Duration, ProviderOptions
from llb_provider_aws import arns
from llb_provider_aws.states import Treatment

_MAX_VALUES = 200
"""Of one filter of DescribeInstances."""
_MAX_TAGS = 40
"""Filters that DescribeInstances takes, less some for ourselves."""

_LONGEST_PAUSE = 20.0
"""Seconds between two tries; botocore's."""
_ASKED_PAUSE = 5.0
"""Seconds that it adds where AWS asks for them."""


def _check_target_group(value: str) -> str:
    if arns.is_arn(value) and not arns.is_target_group_arn(value):
        raise ValueError(
            f'"{value:.120}" is the ARN of no target group '
            "(arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID)"
        )
    if not arns.is_arn(value) and not arns.is_target_group_name(value):
        raise ValueError(
            f'"{value:.60}" is no name of a target group: up to 32 letters, digits and hyphens'
        )
    return value


def _check_region(value: str) -> str:
    if not arns.is_region(value):
        raise ValueError(f'"{value:.60}" is not a region, like "eu-central-1"')
    return value


def _check_role(value: str) -> str:
    if not arns.is_role_arn(value):
        raise ValueError(f'"{value:.120}" is the ARN of no role (arn:aws:iam::ACCOUNT:role/NAME)')
    return value


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError("is not a URL, like https://vpce-0123.ec2.eu-central-1.vpce.amazonaws.com")
    if parts.username or parts.password:
        raise ValueError("holds a user or password: AWS takes neither")
    return value


def _parse_tags(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    if not value:
        raise ValueError("is empty, and would mean every instance there is: name a tag")
    if len(value) > _MAX_TAGS:
        raise ValueError(f"has {len(value)} tags: AWS takes {_MAX_TAGS}")
    return {key: _parse_tag(key, wanted) for key, wanted in value.items()}


def _parse_tag(key: str, value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise ValueError(f"{key}: is neither a string nor a list of strings")
    if not 1 <= len(values) <= _MAX_VALUES:
        raise ValueError(f"{key}: has {len(values)} values: write from 1 to {_MAX_VALUES}")
    return tuple(values)


Tags = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_parse_tags)]


class States(BaseModel):
    """What is done with a target in each state that DescribeTargetHealth knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    healthy: Treatment = Field(
        default=Treatment.HEALTHY, description="it passes the load balancer's checks"
    )
    unhealthy: Treatment = Field(
        default=Treatment.UNHEALTHY, description="it fails the load balancer's checks"
    )
    initial: Treatment = Field(
        default=Treatment.UNHEALTHY, description="it is being registered, or not yet checked"
    )
    draining: Treatment = Field(default=Treatment.DRAIN, description="it is being deregistered")
    unhealthy_draining: Treatment = Field(
        default=Treatment.DRAIN,
        description="it is unhealthy and keeps its connections for a while (unhealthy.draining)",
    )
    unused: Treatment = Field(
        default=Treatment.CHECK, description="no load balancer uses it, or none in its zone"
    )
    unavailable: Treatment = Field(
        default=Treatment.CHECK, description="it is not checked: checks are off for its group"
    )

    def by_state(self) -> Mapping[str, Treatment]:
        """Return the treatments by the words that AWS uses."""
        words = {name: getattr(self, name) for name in type(self).model_fields}
        words["unhealthy.draining"] = words.pop("unhealthy_draining")
        return words


class AwsOptions(ProviderOptions):
    """The options of the provider `aws`. Just one of `target_group`, `auto_scaling_group` and
    `tags` says where the backends come from."""

    target_group: Annotated[StrictStr, AfterValidator(_check_target_group)] | None = Field(
        default=None, description="a target group of Elastic Load Balancing, by ARN or name"
    )
    auto_scaling_group: Annotated[StrictStr, Field(min_length=1, max_length=255)] | None = Field(
        default=None, description="an Auto Scaling group, by name; needs port"
    )
    tags: Tags | None = Field(
        default=None,
        description="EC2 instances that have all these tags, each with that value or any of the "
        "list (* and ? stand for any characters): 1 to 40 tags of 1 to 200 values; needs port",
        json_schema_extra={"type": 'table, { TAG = "VALUE" } or { TAG = ["VALUE", …] }'},
    )
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = Field(
        default=None, description="the backends' port; a target group says it itself"
    )
    states: States = Field(
        default=States(),
        description="by a target's state in its group: healthy (AWS's word is taken), check (LLB's "
        "own checks decide), unhealthy, drain (it gets no new connections), omit (no backend)",
    )
    region: Annotated[StrictStr, AfterValidator(_check_region)] | None = Field(
        default=None, description="by default that of the ARN, the environment or the profile"
    )
    profile: Annotated[StrictStr, Field(min_length=1)] | None = Field(
        default=None, description="a profile of AWS's own configuration files"
    )
    role_arn: Annotated[StrictStr, AfterValidator(_check_role)] | None = Field(
        default=None, description="a role to assume first"
    )
    external_id: Annotated[StrictStr, Field(min_length=2, max_length=1224)] | None = Field(
        default=None,
        repr=False,
        description="what the role's owner wants to be told; needs role_arn",
    )
    role_session_name: Annotated[StrictStr, Field(pattern=r"^[\w+=,.@-]{2,64}$")] = Field(
        default="llb", description="what the assumed role's session is called in AWS's logs"
    )
    endpoint_url: Annotated[StrictStr, AfterValidator(_check_url)] | None = Field(
        default=None, description="asked instead of AWS's own addresses, for every AWS service"
    )
    refresh: Annotated[Duration, Field(ge=1, le=3600)] = Field(
        default=10.0, description="from one question to AWS to the next, as 10s"
    )
    connect_timeout: Annotated[Duration, Field(ge=0.05, le=60)] = Field(
        default=3.0, description="until there is a connection to AWS, as 3s"
    )
    read_timeout: Annotated[Duration, Field(ge=0.05, le=120)] = Field(
        default=8.0, description="for an answer of AWS, or the next part of it, as 8s"
    )
    max_attempts: Annotated[StrictInt, Field(ge=1, le=10)] = Field(
        default=3, description="how often a call is tried in all"
    )

    @property
    def longest_call(self) -> float:
        """The seconds that one call takes at most: its tries, and boto3's pauses between them."""
        pauses = (
            min(2.0**retry, _LONGEST_PAUSE) + _ASKED_PAUSE for retry in range(self.max_attempts - 1)
        )
        tries = self.max_attempts * (self.connect_timeout + self.read_timeout)
        return tries + sum(pauses)

    @model_validator(mode="after")
    def _check_together(self) -> AwsOptions:
        ways = [way for way in ("target_group", "auto_scaling_group", "tags") if getattr(self, way)]
        if not ways:
            raise _error(
                "target_group", "is missing: write target_group, auto_scaling_group or tags"
            )
        if len(ways) > 1:
            raise _error(
                ways[1],
                f"stands beside {ways[0]}: write just one of target_group, auto_scaling_group and "
                "tags (a service may have several providers)",
            )
        if self.target_group and self.port is not None:
            raise _error("port", "is not for a target group, whose targets have ports of their own")
        if not self.target_group and self.port is None:
            raise _error("port", f"is missing: {ways[0]} doesn't say the backends' port")
        if not self.target_group and "states" in self.model_fields_set:
            raise _error("states", f"is only for a target group, and here is {ways[0]}")
        if self.external_id and not self.role_arn:
            raise _error("external_id", "is only for a role: write role_arn as well")
        region = arns.region_of(self.target_group or "")
        if region and self.region and region != self.region:
            raise _error("region", f'"{self.region}" is not that of the target group, {region}')
        return self


def _error(key: str, text: str) -> ValidationError:
    """Return an error at a key of the table, though it takes the whole table to see it."""
    detail = InitErrorDetails(
        type="value_error", loc=(key,), input=None, ctx={"error": ValueError(text)}
    )
    return ValidationError.from_exception_data("AwsOptions", [detail])
