"""Backends from EC2 instances that have certain tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from llb_core import Backend, Endpoint, ProviderError
from llb_provider_aws.connection import Connection
from llb_provider_aws.instances import Instances
from llb_provider_aws.states import Treatment, make_backend, of_instance, one_each


class TaggedBackends:
    """The backends among EC2's instances with all the tags: their IPv4 addresses, at one port."""

    calls: ClassVar[int] = 11
    """Pages of as many instances as a service may have backends, and an empty one."""

    def __init__(
        self,
        connection: Connection,
        instances: Instances,
        tags: Mapping[str, Sequence[str]],
        port: int,
    ) -> None:
        self._connection = connection
        self._instances = instances
        self._tags = tags
        self._port = port

    def gather(self) -> list[Backend]:
        """Return all of them; raise ProviderError."""
        backends = []
        for instance in self._instances.by_tags(self._tags):
            treatment = of_instance(instance.state)
            address = instance.addresses.get(4)
            if treatment is Treatment.OMIT:
                continue
            if address is not None:
                endpoint = Endpoint(address, self._port)
                backends.append(make_backend(endpoint, treatment, f"instance {instance.id}"))
            elif treatment is Treatment.CHECK:
                raise ProviderError(
                    f"{self._connection.place}: {instance.id} has the tags and runs, but has no "
                    "private IPv4 address"
                )
        return one_each(backends)
