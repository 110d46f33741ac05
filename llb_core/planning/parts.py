"""Take what is installed apart by service, so that one is planned without a look at the others.
Pure.

All that services share are the slots of the maps (`taken` of `plan.make_plan`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import is_not

from llb_core.model import Installed, InstalledBackend, InstalledService
from llb_core.rules import NO_RULES, Rules

_FEW = 16
"""Services that are taken apart one by one; where more have changed, all are."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is installed under one service slot. `service` is None where it holds no service, and
    somebody left backends or prefixes of it."""

    service: InstalledService | None
    backends: Mapping[int, InstalledBackend]
    rules: Rules = NO_RULES


def split(installed: Installed) -> dict[int, Part]:
    """Return what is installed by the slot of the service that it belongs to."""
    backends: dict[int, dict[int, InstalledBackend]] = {
        slot: {} for slot in (*installed.services, *installed.rules)
    }
    for slot, each in installed.backends.items():
        own = backends.get(each.service_slot)
        if own is None:
            own = backends[each.service_slot] = {}
        own[slot] = each
    return {
        slot: Part(installed.services.get(slot), own, installed.rules.get(slot, NO_RULES))
        for slot, own in backends.items()
    }


def split_again(
    installed: Installed, before: Installed, parts: Mapping[int, Part]
) -> Mapping[int, Part]:
    """Return what `split` would, from what it returned of `before`: the parts of which nothing has
    changed are the same objects."""
    now, then = installed.backends, before.backends
    # Without a step of Python for each of ten thousand.
    put = [*compress(now, map(is_not, now.values(), map(then.get, now)))]
    gone = then.keys() - now.keys()
    changed = {now[slot].service_slot for slot in put}
    changed |= {then[slot].service_slot for slot in gone}
    changed |= {then[slot].service_slot for slot in put if slot in then}
    changed |= _others(installed.services, before.services)
    changed |= _others(installed.rules, before.rules)
    if len(changed) > _FEW:
        return split(installed)
    result = dict(parts)
    for slot in changed:
        old = result.pop(slot, None)
        own = [*(old.backends if old else ()), *put]
        backends = {s: now[s] for s in own if s in now and now[s].service_slot == slot}
        if backends or slot in installed.services or slot in installed.rules:
            service, rules = installed.services.get(slot), installed.rules.get(slot, NO_RULES)
            result[slot] = Part(service, backends, rules)
    return result


def _others(now: Mapping[int, object], before: Mapping[int, object]) -> set[int]:
    """Return the slots that do not hold the same object any more."""
    return {slot for slot in now.keys() | before.keys() if now.get(slot) is not before.get(slot)}


def joined(parts: Iterable[tuple[int, Part]]) -> Installed:
    """Return what is installed under some service slots alone: the inverse of `split`."""
    services: dict[int, InstalledService] = {}
    backends: dict[int, InstalledBackend] = {}
    rules: dict[int, Rules] = {}
    for slot, part in parts:
        if part.service is not None:
            services[slot] = part.service
        if part.rules:
            rules[slot] = part.rules
        backends.update(part.backends)
    return Installed(services, backends, rules)
