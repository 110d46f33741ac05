"""Ask EC2 for instances: by id, whose addresses are remembered, and by tags."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from llb_core import Address, ProviderError
from llb_provider_aws.connection import Answer, Connection
from llb_provider_aws.faults import unreadable

_OPERATION = "DescribeInstances"
_BATCH = 200
"""Values that a filter takes."""
_PAGE = 1000
"""The largest page that EC2 gives."""
_LIFETIME = 600.0
"""Seconds for which an address is remembered. An instance's main private address never changes."""
_PATIENCE = 30.0
"""Seconds after which no further batch is asked for in one answer: what is there by then is
remembered, and the others come with the next."""
_ALIVE = ("running", "stopping", "shutting-down")


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance with its private addresses, by family (4 and 6)."""

    id: str
    state: str
    addresses: Mapping[int, Address]


class Instances:
    """The instances that one service asks for. For one thread."""

    def __init__(
        self, connection: Connection, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._known: dict[str, tuple[Instance, float]] = {}
        """Those with an address, each with the time until which it is remembered."""

    def by_id(self, ids: Iterable[str]) -> Mapping[str, Instance]:
        """Return the instances with these ids; one that EC2 doesn't know is not among them.

        Asks only for those that aren't remembered with an address. They are filtered by their
        ids, not named by them: with names, one instance that has gone would fail the whole call.
        Raises ProviderError where that takes too long; what came by then is asked for no more.
        """
        wanted, began = sorted(set(ids)), self._clock()
        self._known = {
            each: self._known[each]
            for each in wanted
            if each in self._known and self._known[each][1] > began
        }
        found = {each: instance for each, (instance, _) in self._known.items()}
        missing = [each for each in wanted if each not in found]
        for start in range(0, len(missing), _BATCH):
            took = self._clock() - began
            if took > _PATIENCE:
                raise ProviderError(
                    f"{self._connection.place}: {_OPERATION}: {len(self._known)} of {len(wanted)} "
                    f"instances are known after {took:.0f} s: the others are asked for next time"
                )
            batch = missing[start : start + _BATCH]
            for instance in self._described(("instance-id", batch)):
                found[instance.id] = instance
                if instance.addresses:
                    self._known[instance.id] = instance, self._clock() + _LIFETIME
        return found

    def by_tags(self, tags: Mapping[str, Sequence[str]]) -> list[Instance]:
        """Return the instances that have all the tags, and run or are about to stop."""
        filters = [("instance-state-name", _ALIVE), *((f"tag:{key}", tags[key]) for key in tags)]
        return self._described(*filters)

    def _described(self, *wanted: tuple[str, Sequence[str]]) -> list[Instance]:
        filters = [{"Name": name, "Values": list(values)} for name, values in wanted]
        return [
            self._parsed(instance)
            for page in self._connection.pages(
                "ec2", _OPERATION, "Reservations", size=_PAGE, Filters=filters
            )
            for reservation in page
            for instance in self._of_reservation(reservation)
        ]

    def _of_reservation(self, reservation: Answer) -> Iterable[Answer]:
        instances = reservation.get("Instances")
        if not isinstance(instances, list):
            raise unreadable(self._connection.place, _OPERATION, lacks="Instances")
        return instances

    def _parsed(self, instance: Answer) -> Instance:
        try:
            return Instance(
                id=str(instance["InstanceId"]),
                state=str(instance["State"]["Name"]),
                addresses=_addresses(instance),
            )
        except KeyError as error:
            lacks = str(error.args[0])
            raise unreadable(
                self._connection.place, _OPERATION, lacks=lacks, whose=_named(instance)
            ) from None
        except (TypeError, ValueError) as error:
            raise unreadable(
                self._connection.place, _OPERATION, wrong=str(error), whose=_named(instance)
            ) from None


def _named(instance: Answer) -> str:
    known = isinstance(instance, Mapping) and instance.get("InstanceId")
    return f"instance {known}" if known else "an instance"


def _addresses(instance: Answer) -> Mapping[int, Address]:
    """Return the main private address of each family that the instance has one of."""
    written = [instance.get("PrivateIpAddress"), instance.get("Ipv6Address")]
    for interface in instance.get("NetworkInterfaces") or ():
        own = interface.get("Ipv6Addresses") or ()
        written += [each.get("Ipv6Address") for each in own if each.get("IsPrimaryIpv6")]
    addresses = [ipaddress.ip_address(each) for each in written if each]
    return {address.version: address for address in addresses}
