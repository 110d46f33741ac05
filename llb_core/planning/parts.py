"""Take what is installed apart by service, so that one is planned without a look at the others.
Pure.

All that services share are the slots of the maps (`taken` of `plan.make_plan`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llb_core.model import Installed, InstalledBackend, InstalledService
from llb_core.rules import NO_RULES, Rules


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
