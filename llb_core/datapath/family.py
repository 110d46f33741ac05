"""The maps and programs of one address family of a balancer: one unit, apart from the other's.

A family costs memory (some 300 MB for a million connections), so it is opened only where a service
has an address of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llb_core.datapath import bpffs, pins, programs, reading
from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.installed import read_installed
from llb_core.errors import HostError
from llb_core.model import Installed, Ticks

if TYPE_CHECKING:
    from llb_core.config import LoadBalancerConfig


@dataclass(slots=True)
class Family:
    """Open maps and loaded programs. Closing it leaves maps and traffic as they are."""

    number: int
    """4 or 6."""
    maps: dict[str, MapReader]
    program_fds: dict[str, int] = field(default_factory=dict)
    ticks_per_second: int = 0

    @classmethod
    def open(cls, settings: LoadBalancerConfig, number: int) -> Family:
        """Make or open the pinned maps, compile and load. Nothing is attached yet.

        Raises HostError or LayoutMismatch, with a remedy; then nothing new is left behind.
        """
        # Whoever only reads has no use for it, nor for what it imports.
        from llb_core.datapath.compiling import compile_programs

        name, room = settings.name, settings.max_connections
        folder = pins.pin_folder(name, number)
        is_new = not folder.exists()
        opened = pins.open_maps(name, number, room)
        try:
            fds = compile_programs(name, room, number)
        except BaseException:
            for each in opened.values():
                each.close()
            if is_new:
                pins.remove_pins(name, number)
            raise
        ticks = programs.measure_ticks_per_second(fds["read_clocks"])
        return cls(number, opened, fds, ticks)

    @classmethod
    def open_reading(cls, name: str, number: int) -> Family:
        """Open the pinned maps to read them; HostError where none are.

        No program is loaded: what needs the kernel's clock or the collector is not to be had.
        """
        capacity = pins.pinned_capacity(name, number)
        if capacity is None:
            raise HostError(f"{pins.pin_folder(name, number)}: there are no tables of connections")
        return cls(number, pins.open_maps(name, number, capacity, create_missing=False))

    @property
    def is_in_use(self) -> bool:
        """Whether a packet finds a service or a connection in the maps."""
        return any(
            next(self.maps[name].chunks(), None) is not None
            for name in ("service_keys", "dnat_table")
        )

    def installed(self, *, with_tables: bool = True) -> Installed:
        """Read what the maps hold of services and backends; see `read_installed`."""
        return read_installed(self.maps, self.number, with_tables=with_tables)

    def counters(
        self, installed: Installed | None = None, *, with_drops: bool = True
    ) -> reading.Counters:
        """Return what the classifier has counted; quicker where `installed` says for whom."""
        return reading.read_counters(self.maps, installed, with_drops=with_drops)

    def traffic(
        self, installed: Installed
    ) -> tuple[Mapping[int, reading.Traffic], Mapping[int, reading.Traffic]]:
        """Return what of that is of services and of backends, by slot."""
        return reading.read_traffic(self.maps, installed)

    def now(self) -> int:
        """Return the kernel's clock in ticks, 32 bits."""
        return programs.read_ticks(self.program_fds["read_clocks"])

    def clock(self) -> Ticks:
        """Return the kernel's clock."""
        return Ticks(self.now(), self.ticks_per_second)

    def close(self) -> None:
        """Give the file descriptors back. Traffic goes on."""
        for each in self.maps.values():
            each.close()
        for fd in self.program_fds.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self.program_fds = {}


@contextlib.contextmanager
def pinned(name: str) -> Iterator[dict[int, Family]]:
    """Open what is pinned of a balancer to read it, by address family, for a while. Raises as
    `open_pinned` does."""
    families = open_pinned(name)
    try:
        yield families
    finally:
        for each in families.values():
            each.close()


def open_pinned(name: str) -> dict[int, Family]:
    """Open what is pinned of a balancer to read it, by address family; HostError where nothing is,
    LayoutMismatch where it is of another layout."""
    pins.refuse_other_versions(name)
    numbers = pins.pinned_families(name)
    if not numbers:
        hint = (
            ", and another BPF file system here than init sees, as under ip netns exec: call it by "
            "nsenter --net=/run/netns/NAME"
        )
        raise HostError(
            f'nothing is installed under the name "{name}": no {pins.pin_root(name)}'
            f"{hint if bpffs.is_apart() else ''}"
        )
    return {number: Family.open_reading(name, number) for number in numbers}
