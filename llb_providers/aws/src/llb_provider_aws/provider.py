"""The provider `aws`: choose where the backends come from, and ask there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from pydantic import BaseModel

from llb_core import Backend, Provider, ProviderContext
from llb_provider_aws.arns import region_of
from llb_provider_aws.auto_scaling import AutoScalingBackends
from llb_provider_aws.connection import Access, Connection, connect
from llb_provider_aws.instances import Instances
from llb_provider_aws.options import AwsOptions
from llb_provider_aws.tagged import TaggedBackends
from llb_provider_aws.target_group import TargetGroupBackends


class _Way(Protocol):
    calls: ClassVar[int]
    """How many calls it makes at most, one after the other; of those for instances by id, one."""

    def gather(self) -> list[Backend]:
        """Return all backends; raise ProviderError."""


class AwsProvider(Provider[AwsOptions]):
    """Backends from a target group, an Auto Scaling group, or EC2 instances by their tags.

    AWS can't be watched, and so it is asked every so often.
    """

    name: ClassVar[str] = "aws"
    Options: ClassVar[type[BaseModel]] = AwsOptions

    def __init__(
        self,
        options: AwsOptions,
        context: ProviderContext,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        connect: Callable[[Access], Connection] = connect,
    ) -> None:
        super().__init__(options, context)
        self.refresh = options.refresh * (0.9 + 0.2 * chance())
        """Spread, so that the services of a daemon don't ask all at once."""
        connection = connect(_access(options))
        self._way = _way(options, connection, Instances(connection, clock=clock))
        calls = self._way.calls + bool(options.role_arn)
        self.time_limit = Provider.time_limit + calls * options.longest_call
        """So that it is always the call that fails, by its own timeouts: it knows what helps."""

    def gather_backends(self) -> Sequence[Backend]:
        """Return what AWS says now."""
        return self._way.gather()


def _access(options: AwsOptions) -> Access:
    return Access(
        region=options.region or region_of(options.target_group or ""),
        profile=options.profile,
        role_arn=options.role_arn,
        external_id=options.external_id,
        role_session_name=options.role_session_name,
        endpoint_url=options.endpoint_url,
        connect_timeout=options.connect_timeout,
        read_timeout=options.read_timeout,
        max_attempts=options.max_attempts,
    )


def _way(options: AwsOptions, connection: Connection, instances: Instances) -> _Way:
    if options.target_group is not None:
        treatments = options.states.by_state()
        return TargetGroupBackends(connection, instances, options.target_group, treatments)
    assert options.port is not None  # the options' own check
    if options.auto_scaling_group is not None:
        return AutoScalingBackends(connection, instances, options.auto_scaling_group, options.port)
    assert options.tags is not None
    return TaggedBackends(connection, instances, options.tags, options.port)
