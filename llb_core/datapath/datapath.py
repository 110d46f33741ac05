"""The kernel's side of one balancer, as one object: maps, programs, filters, routes, counters.

It writes no map: `llb_core.map_sync` does, with the readers that it finds here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from llb_core.config import Config, LoadBalancerConfig
from llb_core.datapath import attach, host, pins, programs, reading, routes
from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.layout import compile_flags
from llb_core.datapath.loader import load_programs
from llb_core.model import Address, Installed, Route


@dataclass(slots=True)
class Datapath:
    """Open maps and loaded programs. Closing it leaves maps, filters and traffic as they are."""

    settings: LoadBalancerConfig
    maps: dict[str, MapReader]
    program_fds: dict[str, int] = field(default_factory=dict)
    ticks_per_second: int = 0

    @classmethod
    def open(cls, config: Config) -> Datapath:
        """Make or open the pinned maps, compile and load. Nothing is attached yet.

        Raises HostError or LayoutMismatch, with a remedy; then nothing new is left behind.
        """
        settings = config.loadbalancer
        with attach.netlink() as ip:
            for interface in _interfaces(settings):
                attach.interface_index(ip, interface)
        host.refuse_shared_ports(settings.snat_ports)
        pins.ensure_bpffs()
        is_new = not pins.pin_folder(settings.name).exists()
        opened = pins.open_maps(settings.name, settings.max_connections)
        try:
            fds = load_programs(
                pins.pin_folder(settings.name), compile_flags(settings.max_connections)
            )
        except BaseException:
            for each in opened.values():
                each.close()
            if is_new:
                pins.remove_pins(settings.name)
            raise
        ticks = programs.measure_ticks_per_second(fds["read_clocks"])
        return cls(settings, opened, fds, ticks)

    @classmethod
    def open_reading(cls, config: Config) -> Datapath:
        """Open the pinned maps to read them, where no daemon answers; HostError where none are.

        No program is loaded: what needs the kernel's clock or the collector is not to be had.
        """
        settings = config.loadbalancer
        capacity = pins.pinned_capacity(settings.name) or settings.max_connections
        opened = pins.open_maps(settings.name, capacity, create_missing=False)
        return cls(settings, opened)

    def prepare_host(self, vips: Iterable[Address]) -> list[str]:
        """Switch forwarding on and add the addresses that the host lacks, remembering each; take
        away addresses of ours that are wanted no longer. Return what was done, a phrase each."""
        changes = host.Changes.load(self.settings.name)
        done = []
        if host.set_sysctl(changes, host.FORWARDING, "1"):
            done.append("switched net.ipv4.ip_forward on")
        wanted = [("lo", vip) for vip in vips]
        wanted += [
            (self.settings.private_interface, address) for address in self.settings.snat_addresses
        ]
        with attach.netlink() as ip:
            if self.settings.manage_addresses:
                done += [f"added {each}" for each in host.add_addresses(ip, changes, wanted)]
            keep = [address for _, address in wanted] if self.settings.manage_addresses else []
            done += [f"removed {each}" for each in host.remove_addresses(ip, changes, keep)]
        return done

    def attach(self) -> None:
        """Hang the classifier on every interface, in place of an earlier one, and take it away
        from interfaces that the configuration names no longer."""
        name = self.settings.name
        changes = host.Changes.load(name)
        with attach.netlink() as ip:
            wanted = {each: attach.interface_index(ip, each) for each in _interfaces(self.settings)}
            for interface, index in wanted.items():
                if attach.ensure_clsact(ip, index):
                    changes.clsact.append(interface)
                    changes.save()
                attach.attach(ip, index, self.program_fds["classify"], name)
            for index in attach.attached_indices(ip, name):
                if index not in wanted.values():
                    attach.detach(ip, index, name)

    @staticmethod
    def detach(name: str) -> list[str]:
        """Take filters, maps, addresses and sysctls of a balancer away: the host is as it was.

        Return what was done, a phrase each; nothing where nothing was installed.
        """
        done = []
        with attach.netlink() as ip:
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
            for index in attach.attached_indices(ip, name):
                attach.detach(ip, index, name)
                done.append(f"removed the classifier from {names[index]}")
            done += host.undo(ip, host.Changes.load(name))
        if pins.remove_pins(name):
            done.append(f"removed the maps under {pins.pin_root(name)}")
        return done

    def private_index(self) -> int:
        """Return the index of the private interface."""
        with attach.netlink() as ip:
            return attach.interface_index(ip, self.settings.private_interface)

    def routes(self, addresses: Iterable[Address]) -> dict[Address, Route]:
        """Return the kernel's route to each address; those without one are left out."""
        with attach.netlink() as ip:
            return routes.find_routes(ip, addresses)

    def counters(self, installed: Installed | None = None) -> reading.Counters:
        """Return what the classifier has counted; quicker where `installed` says for whom."""
        return reading.read_counters(self.maps, installed)

    def now(self) -> int:
        """Return the kernel's clock in ticks, 32 bits."""
        return programs.read_ticks(self.program_fds["read_clocks"])

    def close(self) -> None:
        """Give the file descriptors back. Traffic goes on."""
        for each in self.maps.values():
            each.close()
        for fd in self.program_fds.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self.program_fds = {}


def _interfaces(settings: LoadBalancerConfig) -> list[str]:
    """Return every interface once, the public ones first."""
    return list(dict.fromkeys((*settings.public_interfaces, settings.private_interface)))


def is_installed(name: str) -> bool:
    """Say whether maps of a balancer of that name are pinned, of whichever layout."""
    return pins.is_pinned(name)
