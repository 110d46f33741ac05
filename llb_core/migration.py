"""Carry everything over from maps of an earlier layout, connections too, while traffic goes on.

The old classifier works on the old maps until the filter is replaced; so connections are copied
twice before that, the second time quickly, and those that were opened in between once more after
it. The old pins go at the very end: whoever is killed before begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from llb_core.datapath import pins
from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.installed import read_installed
from llb_core.datapath.old_layouts import open_old
from llb_core.map_sync import MapSync
from llb_core.model import Installed
from llb_core.planning.changes import (
    Change,
    Plan,
    PutBackend,
    PutRules,
    PutService,
    PutServiceKey,
    PutTable,
)
from llb_core.rules import NO_RULES
from llb_core.rules import changes as rule_changes

log = logging.getLogger(__name__)

TABLES = ("snat_table", "dnat_table")
"""In this order, so that no half leads to a twin that is not there yet."""


@dataclass(slots=True)
class Migration:
    """From one old layout. `begin` before the filters are replaced, then `catch_up`, `finish`."""

    name: str
    version: int
    families: Mapping[int, tuple[MapSync, Mapping[str, MapReader]]]
    is_resumed: bool
    """Whether an earlier daemon was killed over it: what is in the new maps may be newer then."""

    @classmethod
    def begin(cls, name: str, map_syncs: Mapping[int, MapSync]) -> Migration | None:
        """Copy everything from the maps of the newest old layout; None where there are none."""
        found = pins.old_versions(name)
        if not found:
            pins.remove_old(name)
            return None
        version = max(found)
        root = pins.pin_root(name)
        families = {
            family: (map_syncs[family], open_old(root, version, family))
            for family in pins.FAMILIES
            if (root / str(version) / f"ipv{family}").is_dir()
        }
        is_resumed = any(each.has_connections for each, _ in families.values())
        migration = cls(name, version, families, is_resumed)
        for family, (map_sync, maps) in families.items():
            map_sync.apply(_adoption(read_installed(maps, family)))
        migration.copy()
        return migration

    def copy(self) -> int:
        """Copy connections; return how many. Just before the filters are replaced, once more."""
        return sum(
            map_sync.take_over(table, *entries, only_missing=self.is_resumed)
            for map_sync, maps in self.families.values()
            for table in TABLES
            for entries in maps[table].chunks()
        )

    def catch_up(self) -> None:
        """Copy what was opened until the filters were replaced: from then on all is here."""
        self.is_resumed = True
        self.copy()

    def finish(self) -> None:
        """Take the old maps away."""
        count = sum(
            len(keys)
            for _, maps in self.families.values()
            for keys, _ in maps["dnat_table"].chunks()
        )
        for _, maps in self.families.values():
            for each in maps.values():
                each.close()
        pins.remove_old(self.name)
        log.info("carried %d connections over from maps of layout %d", count, self.version)


def _adoption(installed: Installed) -> Plan:
    """Return the changes that install everything in its own slots: connections name them."""
    services = installed.services.values()
    changes: list[Change] = [
        PutRules(slot, rule_changes(NO_RULES, rules)[0]) for slot, rules in installed.rules.items()
    ]
    changes += [
        PutService(each.slot, each.name, each.key, each.timeouts, each.policy) for each in services
    ]
    changes += [PutBackend(each) for each in installed.backends.values()]
    changes += [PutTable(each.slot, each.table) for each in services if each.table.size]
    changes += [PutServiceKey(each.key, each.slot) for each in services if each.is_reachable]
    return Plan(tuple(changes))
