"""Put in place what belongs to no service: settings, addresses, sysctls and filters.

At a start, at a reload, which refuses what can't be and puts back what was where that fails, and
after a first start that failed. What is not here: services and their backends (`balancer`), and
what somebody else changes later (`self_repair`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial

from llb_core.config import Config, LoadBalancerConfig
from llb_core.datapath import Datapath
from llb_core.datapath.host_ports import ports_in_use
from llb_core.errors import LLBError
from llb_core.health.source_ports import source_ports
from llb_core.map_records import refuse_too_many
from llb_core.map_sync import MapSync
from llb_core.migration import Migration
from llb_core.model import Address
from llb_core.running import Running

log = logging.getLogger(__name__)


def install(
    datapath: Datapath,
    map_syncs: Mapping[int, MapSync],
    settings: LoadBalancerConfig,
    vips: Collection[Address],
    migration: Migration | None = None,
) -> None:
    """Put it all in place. In the thread of the turns."""
    datapath.settings = settings
    put_settings(datapath, map_syncs, is_carrying=migration is not None)
    for done in datapath.prepare_host(vips):
        log.info("%s", done)
    if migration:
        migration.copy()
    datapath.attach()


def put_settings(
    datapath: Datapath, map_syncs: Mapping[int, MapSync], *, is_carrying: bool = False
) -> None:
    """Write the settings into the maps of each family. In the thread of the turns."""
    settings = datapath.settings
    for number, map_sync in map_syncs.items():
        # A family that no service uses any more goes on by what it had, to its connections' end.
        if settings.cidrs_of(number) and settings.snat_of(number):
            map_sync.put_settings(settings, datapath.private_index(), is_carrying=is_carrying)
            map_sync.put_host_ports(ports_in_use(settings.snat_of(number)))


def refuse_what_cannot_be(running: Running, new: Config) -> None:
    """Raise LLBError where this host can't be what a configuration wants, as far as that can be
    seen without a change. Blocks while the link is asked for new SNAT addresses."""
    settings = new.loadbalancer
    source_ports(settings.snat_ports)
    for family in new.families:
        refuse_too_many(settings, family)
    known = running.config.loadbalancer.snat_addresses
    Datapath.refuse_what_cannot_be(settings, new.families, known)


def reinstall(running: Running, old: Config, new: Config) -> None:
    """Put what a changed configuration wants in place; whatever fails, the old one's is put back.
    In the thread of the turns."""
    datapath = running.datapath
    opened: list[int] = []
    try:
        opened = datapath.open_families(new.families)
        map_syncs = {number: MapSync(datapath.families[number]) for number in opened}
        # The old services' traffic goes on until they are withdrawn.
        install(datapath, running.map_syncs | map_syncs, new.loadbalancer, old.vips | new.vips)
    except BaseException:
        _put_back(running, old, opened)
        raise
    running.map_syncs |= map_syncs


def _put_back(running: Running, old: Config, opened: Collection[int]) -> None:
    """Put in place what was before a reload that failed; what can't be is told."""
    datapath = running.datapath
    steps: list[Callable[[], None]] = [partial(datapath.close_family, each) for each in opened]
    steps.append(lambda: install(datapath, running.map_syncs, old.loadbalancer, old.vips))
    for step in steps:
        try:
            step()
        except Exception:
            log.exception("what was before the reload can't be put back whole")


def take_away(name: str) -> None:
    """Leave nothing of a first start that failed; what can't be taken away is told."""
    try:
        Datapath.detach(name)
    except LLBError as error:
        log.error("what was installed can't be taken away whole: %s", error)
    except Exception:
        log.exception("what was installed can't be taken away whole: llb detach does it")
