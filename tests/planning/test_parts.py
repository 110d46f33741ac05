"""What is installed, taken apart by service: anew, or by what was found before."""

from __future__ import annotations

import ipaddress
import random
from dataclasses import replace

from llb_core.model import (
    BackendMode,
    Endpoint,
    Installed,
    InstalledBackend,
    InstalledService,
    ServiceKey,
    Timeouts,
    Transport,
)
from llb_core.planning.parts import joined, split, split_again

VIP = ipaddress.ip_address("203.0.113.10")


def service(slot: int) -> InstalledService:
    key = ServiceKey(Endpoint(VIP, slot), Transport.TCP)
    return InstalledService(slot, f"s{slot}", key, Timeouts())


def backend(slot: int, of: int) -> InstalledBackend:
    return InstalledBackend(slot, of, Endpoint(VIP + slot, 80), BackendMode.ACTIVE)


def installed(services: int, each: int) -> Installed:
    return Installed(
        {slot: service(slot) for slot in range(1, services + 1)},
        {slot: backend(slot, 1 + slot % services) for slot in range(1, services * each + 1)},
    )


def changed(before: Installed, chance: random.Random) -> Installed:
    """Return it with some services and backends put, changed or deleted."""
    services, backends = dict(before.services), dict(before.backends)
    for _ in range(chance.randrange(4)):
        slot, of = chance.randrange(1, 60), chance.randrange(1, 8)
        match chance.randrange(4):
            case 0:
                backends.pop(slot, None)
            case 1 if slot in backends:
                backends[slot] = replace(backends[slot], mode=BackendMode.RETIRED)
            case 2:
                backends[slot] = backend(slot, of)
            case _:
                services.pop(of, None) or services.update({of: service(of)})
    return Installed(services, backends)


def test_taken_apart_again_is_taken_apart() -> None:
    chance = random.Random(1)
    before = installed(5, 8)
    parts = split(before)
    for _ in range(300):
        now = changed(before, chance)
        again = split_again(now, before, parts)
        assert again == split(now)
        assert joined(again.items()) == now
        before, parts = now, dict(again)


def test_what_has_not_changed_is_the_same_object() -> None:
    before = installed(5, 8)
    parts = split(before)
    one_out = {8: replace(before.backends[8], mode=BackendMode.RETIRED)}
    again = split_again(Installed(before.services, before.backends | one_out), before, parts)
    assert [slot for slot in parts if again[slot] is not parts[slot]] == [1 + 8 % 5]
