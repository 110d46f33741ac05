"""The kernel's side of one balancer, as one object: its address families, filters, routes, host.

It writes no map: `llb_core.map_sync` does, with the readers that it finds here.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pyroute2 import IPRoute

from llb_core.config import LoadBalancerConfig
from llb_core.datapath import (
    attach,
    bpf_syscall,
    bpffs,
    claims,
    filters,
    forwarding,
    host,
    jumps,
    pins,
    routes,
    tcx,
)
from llb_core.datapath.family import Family, open_pinned
from llb_core.datapath.pinning import refuse_read_only
from llb_core.errors import HostError
from llb_core.model import Address, Route, Ticks

log = logging.getLogger(__name__)

PATIENCE = 1.5
"""Seconds that the host's own configuration is given to put an IPv6 address back that is not ours:
where we are first, with a network of one address, the kernel refuses it with its own network. It is
looked at every two seconds."""


@dataclass(slots=True)
class Datapath:
    """What is open of each address family. Closing it leaves maps, filters and traffic as they
    are."""

    settings: LoadBalancerConfig
    families: dict[int, Family] = field(default_factory=dict)
    """By 4 and 6."""
    _indices: dict[str, int] = field(default_factory=dict)
    """Those of interfaces that were found to be of the Ethernet kind."""
    links: tcx.Links = field(default_factory=tcx.Links)
    monotonic: Callable[[], float] = time.monotonic
    _missed_since: dict[Address, float] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: LoadBalancerConfig, families: Iterable[int]) -> Datapath:
        """Open these address families: maps, compiled programs. Nothing is attached yet.

        Also those that an earlier configuration has left services or connections in, so that these
        come to their end; where it has left nothing, the maps are taken away.
        Raises HostError or LayoutMismatch, with a remedy; then nothing new is left behind.
        """
        datapath = cls(settings)
        pins.refuse_other_versions(settings.name)
        cls.refuse_what_cannot_be(settings, families)
        old = pins.old_families(settings.name)
        datapath.open_families({*families, *datapath._left(families), *old})
        return datapath

    @staticmethod
    def refuse_what_cannot_be(
        settings: LoadBalancerConfig, families: Iterable[int], ours: Collection[Address] = ()
    ) -> None:
        """Raise HostError where the host lacks what these settings name, or somebody else has it;
        nothing is changed. `ours` are SNAT addresses that are known to be our own."""
        interfaces = settings.interfaces
        with attach.netlink() as ip:
            for interface in interfaces:
                attach.interface_index(ip, interface)
        forwarding.refuse_what_cannot_be(families, interfaces)
        host.refuse_shared_ports(settings.snat_ports)
        claims.refuse_what_others_have(settings, ours)

    @classmethod
    def open_reading(cls, settings: LoadBalancerConfig) -> Datapath:
        """Open the maps that are pinned, to read them, where no daemon answers; HostError where
        none are."""
        return cls(settings, open_pinned(settings.name))

    def _left(self, families: Iterable[int]) -> list[int]:
        """Return the pinned families beside these that are still in use; remove the others."""
        name = self.settings.name
        left = []
        for number in sorted(set(pins.pinned_families(name)) - set(families)):
            reading = Family.open_reading(self.settings.name, number)
            try:
                is_in_use = reading.is_in_use
            finally:
                reading.close()
            if is_in_use:
                left.append(number)
            else:
                _remove_family(name, number)
                log.info("took the maps of IPv%d away: nothing uses them any more", number)
        return left

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Every interface once, the public ones first."""
        return self.settings.interfaces

    def open_families(self, families: Iterable[int]) -> list[int]:
        """Open those of the address families that are not open yet; return which that were.

        Raises as `open` does; then those that were open are as before.
        """
        bpffs.ensure_bpffs()
        missing = sorted(set(families) - self.families.keys())
        made = [each for each in missing if not pins.pin_folder(self.settings.name, each).exists()]
        # Side by side: compiling takes a processor for a second and more.
        with ThreadPoolExecutor(len(pins.FAMILIES)) as executor:
            opening = {each: executor.submit(Family.open, self.settings, each) for each in missing}
        try:
            opened = {number: future.result() for number, future in opening.items()}
        except BaseException:
            for number, future in opening.items():
                if future.exception() is None:
                    future.result().close()
                    if number in made:
                        pins.remove_pins(self.settings.name, number)
            raise
        self.families |= opened
        return missing

    def prepare_host(self, vips: Iterable[Address]) -> list[str]:
        """Switch forwarding on and add the addresses that the host lacks, remembering each; take
        away addresses of ours that are wanted no longer. Return what was done, a phrase each."""
        settings = self.settings
        claims.claim(settings)
        changes = host.Changes.load(settings.name)
        done = forwarding.switch_on(changes, self.families, self.interfaces)
        with attach.netlink() as ip:
            wanted = self._placed(vips)
            if settings.manage_addresses:
                done += [f"added {each}" for each in host.add_addresses(ip, changes, wanted)]
            keep = [address for _, address in wanted] if settings.manage_addresses else []
            done += [f"removed {each}" for each in host.remove_addresses(ip, changes, keep)]
        return done

    def attach(self) -> None:
        """Hang each family's classifier on every interface, in place of an earlier one, and take
        it away from interfaces that the configuration names no longer.

        On TCX where the kernel has it, otherwise on clsact. An earlier one on clsact goes once the
        one on TCX hangs: a packet comes to that first, and what it sends on comes to no other.
        """
        name = self.settings.name
        changes = host.Changes.load(name)
        with attach.netlink() as ip:
            wanted = {each: attach.interface_index(ip, each) for each in self.interfaces}
            for family in self.families.values():
                for interface, index in wanted.items():
                    self._hang(ip, changes, interface, index, family)
                folder = pins.pin_folder(name, family.number)
                tcx.detach(folder, keep=wanted.values())
                self.links.let_go(folder, keep=wanted.values())
            for index in attach.attached_indices(ip, name):
                if index not in wanted.values():
                    attach.detach(ip, index, name)
        for number, family in self.families.items():
            jumps.unpin_others(family.program_fds["jumps"], pins.pin_folder(name, number))

    def repair(self, vips: Iterable[Address]) -> tuple[list[str], list[str]]:
        """Put pins, filters, addresses and forwarding right where somebody changed them; take
        nothing away. Return what was done, and what can't be, a phrase each."""
        name, settings = self.settings.name, self.settings
        done: list[str] = []
        missing: list[str] = []
        for number, family in self.families.items():
            pinned = pins.pin_again(name, number, family.maps)
            if jumps.pin_again(family.program_fds["jumps"], pins.pin_folder(name, number)):
                pinned += 1
            if pinned:
                done.append(f"pinned {pinned} maps of IPv{number} again")
        changes = host.Changes.load(name)
        for interface in self.interfaces:
            try:
                index = self._index(interface)
                done += self._attach_again(changes, interface, index)
            except HostError as error:
                missing.append(str(error))
        if missing:
            return done, missing
        done += forwarding.switch_on(changes, self.families, self.interfaces)
        if settings.manage_addresses:
            lost = self._ours_to_add(changes, self._placed(vips))
            if lost:
                with attach.netlink() as ip:
                    done += [f"added {each}" for each in host.add_addresses(ip, changes, lost)]
        return done, missing

    def _ours_to_add(
        self, changes: host.Changes, wanted: Iterable[tuple[str, Address]]
    ) -> list[tuple[str, Address]]:
        """Return the addresses that are missing, but for those that somebody else may be about to
        put back: an interface that comes, or goes up, gets its own of IPv6 anew."""
        lost, now = host.missing_addresses(changes, wanted), self.monotonic()
        since = {address: self._missed_since.get(address, now) for _, address in lost}
        self._missed_since = since
        return [
            (interface, address)
            for interface, address in lost
            if address.version == 4
            or changes.places_of(address)
            or now - since[address] >= PATIENCE
        ]

    def _attach_again(self, changes: host.Changes, interface: str, index: int) -> list[str]:
        name = self.settings.name
        done = []
        for number, family in self.families.items():
            program = bpf_syscall.prog_id(family.program_fds["classify"])
            folder = pins.pin_folder(name, number)
            if self.links.pin_again(folder, index):
                done.append(f"pinned the link of IPv{number} on {interface} again")
            if tcx.attached_program(folder, index) == program:
                continue
            if (attach.filter_name(name, number), program) in filters.attached_programs(index):
                continue
            with attach.netlink() as ip:
                self._hang(ip, changes, interface, index, family)
            done.append(f"hung the classifier of IPv{number} on {interface}")
        return done

    def _hang(
        self, ip: IPRoute, changes: host.Changes, interface: str, index: int, family: Family
    ) -> None:
        name, program = self.settings.name, family.program_fds["classify"]
        if self.links.attach(pins.pin_folder(name, family.number), index, program):
            attach.detach_family(ip, index, name, family.number)
            return
        host.ensure_clsact(ip, changes, interface, index)
        attach.attach(ip, index, program, name, family.number)

    def _placed(self, vips: Iterable[Address]) -> list[tuple[str, Address]]:
        """Return every address of ours with the interface that it belongs to."""
        settings = self.settings
        snat = [each for family in self.families for each in settings.snat_of(family)]
        private = [(settings.private_interface, address) for address in snat]
        return host.placed(self.interfaces, vips) + private

    def close_family(self, number: int) -> None:
        """Close an address family, and take its filters and maps away."""
        self.families.pop(number).close()
        self.links.let_go(pins.pin_folder(self.settings.name, number))
        _remove_family(self.settings.name, number)

    @staticmethod
    def detach(name: str) -> list[str]:
        """Take filters, maps, addresses and sysctls of a balancer away: the host is as it was.

        Return what was done, a phrase each; nothing where nothing was installed. HostError where
        the pins can't be taken away, and then nothing is.
        """
        refuse_read_only(pins.pin_root(name))
        done = []
        with attach.netlink() as ip:
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
            indices = {*tcx.detach(pins.pin_root(name)), *attach.attached_indices(ip, name)}
            for index in sorted(indices):
                attach.detach(ip, index, name)
                done.append(f"removed the classifier from {names.get(index, 'an interface')}")
            done += host.undo(ip, host.Changes.load(name))
        if pins.remove_pins(name):
            done.append(f"removed the maps under {pins.pin_root(name)}")
        claims.forget(name)
        return done

    def private_index(self) -> int:
        """Return the index of the private interface."""
        return self._index(self.settings.private_interface)

    def _index(self, interface: str) -> int:
        """Return an interface's index, asking for its kind once; HostError where there is none."""
        known = self._indices.get(interface)
        try:
            if known is not None and socket.if_nametoindex(interface) == known:
                return known
        except OSError:
            pass  # It is gone: the words for that are below.
        with attach.netlink() as ip:
            index = self._indices[interface] = attach.interface_index(ip, interface)
        return index

    def routes(self, addresses: Iterable[Address]) -> dict[Address, Route]:
        """Return the kernel's route to each address; those without one are left out."""
        with attach.netlink() as ip:
            return routes.find_routes(ip, addresses)

    def clock(self) -> Ticks:
        """Return the kernel's clock, of which there is one; zero where no family is open."""
        return next((family.clock() for family in self.families.values()), Ticks())

    def close(self) -> None:
        """Give the file descriptors back. Traffic goes on."""
        for family in self.families.values():
            family.close()
        self.families = {}
        self.links.close()


def is_installed(name: str) -> bool:
    """Say whether maps of a balancer of that name are pinned, of whichever layout."""
    return pins.is_pinned(name)


def _remove_family(name: str, number: int) -> None:
    tcx.detach(pins.pin_folder(name, number))
    with attach.netlink() as ip:
        for index in attach.attached_indices(ip, name):
            attach.detach_family(ip, index, name, number)
    pins.remove_pins(name, number)
