"""What services, backends, settings and rules look like in the maps: from values to records. Pure.

`of` are the records of the address family, and `ticks_per_second` is the kernel's. Who writes them
is map sync, and `datapath.installed` reads them.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from llb_core.config import LoadBalancerConfig
from llb_core.datapath import layout
from llb_core.datapath.installed import ACCESS_NUMBERS, MODE_NUMBERS, SCHEDULER_NUMBERS
from llb_core.datapath.layout import Records
from llb_core.errors import MapError
from llb_core.model import InstalledBackend, Network, Route, ServiceKey
from llb_core.planning.changes import PutService
from llb_core.rules import Rules

_NAME_BYTES = 64


def settings_record(of: Records, settings: LoadBalancerConfig, ticks_per_second: int) -> Any:
    """Return the balancer's own settings as an array of one record, as far as they are of this
    family."""
    record = np.zeros(1, dtype=of.config)
    record["ticks_per_second"] = ticks_per_second
    low, high = settings.snat_ports
    record["port_low"], record["port_count"] = low, high - low + 1
    refuse_too_many(settings, of.family)
    cidrs, snat = _networks(settings, of.family), settings.snat_of(of.family)
    record["cidr_count"] = len(cidrs)
    for place, cidr in enumerate(cidrs):
        record["cidrs"][0, place] = (of.pack(cidr.network_address), of.pack(cidr.netmask))
    record["snat_count"] = len(snat)
    for place, address in enumerate(snat):
        record["snat"][0, place] = of.pack(address)
    return record


def refuse_too_many(settings: LoadBalancerConfig, family: int) -> None:
    """Raise MapError where the record of the settings has no room for what they name of a
    family."""
    cidrs, snat = len(_networks(settings, family)), len(settings.snat_of(family))
    if cidrs > layout.MAX_CIDRS:
        raise MapError(
            f"loadbalancer.backend_cidrs: {cidrs} networks of IPv{family}, the classifier "
            f"takes {layout.MAX_CIDRS}: join them into larger ones"
        )
    if snat > layout.MAX_SNAT_ADDRESSES:
        raise MapError(
            f"loadbalancer.snat_addresses: {snat} addresses of IPv{family}, the "
            f"classifier takes {layout.MAX_SNAT_ADDRESSES}"
        )


def _networks(settings: LoadBalancerConfig, family: int) -> list[Network]:
    """Return the backends' networks of a family, as few as they can be written in."""
    networks: Any = settings.cidrs_of(family)  # All of one kind, which no type says.
    return list(ipaddress.collapse_addresses(networks))


@lru_cache(maxsize=4)
def port_words(ports: frozenset[int]) -> Any:
    """Return a bit for each port; asked over and over, and seldom for others than before."""
    bits = np.zeros(64 * layout.PORT_WORDS, dtype=np.uint8)
    bits[np.fromiter(ports, dtype=np.intp, count=len(ports))] = 1
    return np.packbits(bits, bitorder="little").view("<u8")


def service_record(of: Records, change: PutService, ticks_per_second: int) -> Any:
    """Return a service as an array of one record; MapError where its name is too long."""
    name = change.name.encode()
    if len(name) > _NAME_BYTES:
        raise MapError(f'the name "{change.name}" is longer than {_NAME_BYTES} bytes')
    (record,) = records = np.zeros(1, dtype=of.service)
    record["address"] = of.pack(change.key.endpoint.address)
    record["port"] = change.key.endpoint.port
    record["proto"] = change.key.protocol.number
    record["name"] = name
    record["scheduler"] = SCHEDULER_NUMBERS[change.policy.scheduler]
    record["affinity_prefix"] = change.policy.affinity_prefix
    record["slow_start"] = round(change.policy.slow_start * 1000)
    record["access"] = ACCESS_NUMBERS[change.policy.access]
    for place, limit in enumerate(layout.LIMIT_NAMES):
        record["limits"][place] = getattr(change.policy.limits, limit)
    for place, timeout in enumerate(layout.TIMEOUT_NAMES):
        milliseconds = round(getattr(change.timeouts, timeout) * 1000)
        record["milliseconds"][place] = milliseconds
        record["timeouts"][place] = math.ceil(milliseconds * ticks_per_second / 1000)
    return records


def backend_records(of: Records, backends: Sequence[InstalledBackend]) -> Any:
    """Return records of backends, field by field: one by one they take twice as long."""
    pack, none = of.pack, Route(0, None, 0)
    nowhere = of.unpack(np.zeros((), dtype=of.address))
    routes = [each.route or none for each in backends]
    records = np.zeros(len(backends), dtype=of.backend)
    records["address"] = [pack(each.endpoint.address) for each in backends]
    records["port"] = [each.endpoint.port for each in backends]
    records["mode"] = [MODE_NUMBERS[each.mode] for each in backends]
    records["service"] = [each.service_slot for each in backends]
    records["weight"] = [each.weight for each in backends]
    records["started"] = [each.started for each in backends]
    records["next_hop"] = [pack(each.next_hop or nowhere) for each in routes]
    records["ifindex"] = [each.interface for each in routes]
    records["mtu"] = [each.mtu for each in routes]
    return records


def rule_records(of: Records, slot: int, rules: Rules) -> tuple[Any, Any]:
    """Return a service's prefixes of clients as keys and values of the map `access_rules`."""
    keys = np.zeros(len(rules), dtype=of.rule_key)
    keys["length"] = rules.records["length"].astype(np.uint32) + layout.RULE_SERVICE_BITS
    keys["service"] = slot
    high, low = rules.records["high"], rules.records["low"]
    words = of.words(keys["address"])
    for place, word in enumerate((high >> 32, high, low >> 32, low)[-words.shape[1] :]):
        words[:, place] = word & 0xFFFFFFFF
    allows = rules.records["allows"]
    return keys, np.where(allows, layout.RULE_ALLOW, layout.RULE_DENY).astype(layout.U32)


def service_key(of: Records, key: ServiceKey, port: int | None = None) -> tuple[object, ...]:
    """Return a key of the map `service_keys`; with port 0 it is the mark of the address."""
    wanted = key.endpoint.port if port is None else port
    return of.pack(key.endpoint.address), wanted, key.protocol.number, 0
