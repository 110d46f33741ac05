"""What must hold whenever a soak has settled, and what its daemon may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.processes import resident
from llb_core.api.client import Client
from llb_core.datapath import Datapath
from llb_core.datapath.layout import STATE_MASK, ConnectionState
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.past_connections import bytes_each
from tests.metrics import read_metric
from tests.soak.world import FAMILIES, World

GROWTH_MIB, GROWTH_DESCRIPTORS = 6.0, 4.0
"""By how much a daemon's memory and open files may have grown from its first look to its last, as a
line through all of them has it."""
LEAST_SAMPLES = 12


def check(world: World) -> None:
    """Note what does not hold. What is under way is waited for."""
    try:
        wait_until(lambda: not world.balancer.control.get("/plan")["changes"], lab.LIMIT, "no plan")
    except TimeoutError:
        changes = world.balancer.control.get("/plan")["changes"]
        world.findings.append(f"the plan does not become empty: {changes}")
    with world.reading() as reading:
        world.count_packets(reading)
        try:
            wait_until(lambda: not any(alone(reading, f) for f in FAMILIES), lab.LIMIT, "twins")
        except TimeoutError:
            numbers = {family: len(alone(reading, family)) for family in FAMILIES}
            world.findings.append(f"halves without a twin stay: {numbers}")
        for family in FAMILIES:
            if shared := _shared_tuples(reading, family):
                world.findings.append(f"IPv{family}: {shared} backend-side tuples are shared")


def alone(reading: Datapath, family: int) -> set[bytes]:
    """Return the keys of the halves that had no twin in either of two looks: one look may come
    between the two writes of a connection, or see the one table before and the other after it."""
    return _alone(reading, family) & _alone(reading, family)


def _alone(reading: Datapath, family: int) -> set[bytes]:
    maps = reading.families[family].maps
    dnat, snat = (maps[name].read_all() for name in ("dnat_table", "snat_table"))
    twins_of_dnat = dict(zip(_list(_twins(*dnat)), _list(dnat[0]), strict=True))
    twins_of_snat = dict(zip(_list(_twins(*snat)), _list(snat[0]), strict=True))
    forward, backward = set(_list(dnat[0])), set(_list(snat[0]))
    return {twins_of_dnat[each] for each in twins_of_dnat.keys() - backward} | {
        twins_of_snat[each] for each in twins_of_snat.keys() - forward
    }


def _shared_tuples(reading: Datapath, family: int) -> int:
    keys, values = reading.families[family].maps["dnat_table"].read_all()
    stands = values["state"] & STATE_MASK != ConnectionState.CLAIMED
    twins = _list(_twins(keys[stands], values[stands]))
    return len(twins) - len(set(twins))


def _twins(keys: Any, values: Any) -> Any:
    """Return the key that the twin of each half has: its packets come the other way."""
    twins = np.zeros(len(keys), dtype=keys.dtype)
    twins["src"], twins["dst"] = values["new_dst"], values["new_src"]
    twins["sport"], twins["dport"] = values["new_dport"], values["new_sport"]
    twins["proto"] = keys["proto"]
    return twins


def _list(keys: Any) -> list[bytes]:
    return [each.tobytes() for each in keys]


@dataclass
class Footprint:
    """What one daemon takes, as long as it lives."""

    pid: int
    memory: list[float] = field(default_factory=list)
    """MiB, without those of connections that are over and remembered: these grow for an hour."""
    descriptors: list[int] = field(default_factory=list)

    def take(self, control: Client) -> None:
        """Look once."""
        past = read_metric(control, "llb_past_connections")
        remembered = sum(past[f"ipv{family}",] * bytes_each(family) for family in FAMILIES)
        self.memory.append(resident(self.pid, "VmRSS") - remembered / (1 << 20))
        self.descriptors.append(sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir()))

    def complaints(self) -> list[str]:
        """What grows and should not; the first quarter warms up."""
        found = []
        for what, samples, limit in (
            ("memory in MiB", self.memory, GROWTH_MIB),
            ("open files", self.descriptors, GROWTH_DESCRIPTORS),
        ):
            watched = samples[len(samples) // 4 :]
            if len(watched) >= LEAST_SAMPLES and (grown := growth(watched)) > limit:
                found.append(f"the daemon's {what} grew by {grown:.1f}: {watched}")
        return found

    def __str__(self) -> str:
        if not self.memory:
            return "not looked at"
        return (
            f"{self.memory[0]:.0f} to {self.memory[-1]:.0f} MiB, {self.descriptors[0]} to "
            f"{self.descriptors[-1]} open files, {len(self.memory)} looks"
        )


def growth(samples: list[Any]) -> float:
    """Return by how much a line through the samples rises from the first to the last."""
    slope, _ = np.polyfit(np.arange(len(samples)), np.array(samples, dtype=float), 1)
    return float(slope) * (len(samples) - 1)
