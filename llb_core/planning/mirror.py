"""What is installed, change by change: the effect of a plan on values. Pure.

Map sync keeps one beside the eBPF maps, so that a turn needn't read them all again; the maps in
memory that tests use are one.
"""

from __future__ import annotations

from dataclasses import replace

from llb_core.model import (
    Installed,
    InstalledBackend,
    InstalledService,
    ServiceKey,
    Table,
    empty_table,
)
from llb_core.planning.changes import (
    Change,
    DeleteBackend,
    DeleteRules,
    DeleteService,
    DeleteServiceKey,
    DropTable,
    PutBackend,
    PutRules,
    PutService,
    PutServiceKey,
    PutTable,
    WriteTable,
)
from llb_core.rules import NO_RULES, Rules


class Mirror:
    """The services, their keys and tables, and the backends that changes have left."""

    def __init__(self, installed: Installed | None = None) -> None:
        known = installed or Installed()
        self.services: dict[int, InstalledService] = dict(known.services)
        self.backends: dict[int, InstalledBackend] = dict(known.backends)
        self.rules: dict[int, Rules] = dict(known.rules)
        self.keys: dict[ServiceKey, int] = {
            service.key: slot for slot, service in self.services.items() if service.is_reachable
        }
        self._installed: Installed | None = None

    def installed(self) -> Installed:
        """Return what is installed now; later changes don't reach it. It is the same object for as
        long as there are none."""
        if self._installed is None:
            self._installed = Installed(dict(self.services), dict(self.backends), dict(self.rules))
        return self._installed

    def carry_out(self, change: Change) -> None:
        """Take one change into account."""
        self._installed = None
        match change:
            case PutService(slot, name, key, timeouts, policy):
                old = self.services.get(slot)
                self.services[slot] = InstalledService(
                    slot=slot,
                    name=name,
                    key=key,
                    timeouts=timeouts,
                    table=old.table if old else empty_table(),
                    is_reachable=self.keys.get(key) == slot,
                    policy=policy,
                )
            case PutRules(slot, rules):
                self._set_rules(slot, self.rules.get(slot, NO_RULES).after(rules, NO_RULES))
            case DeleteRules(slot, rules):
                self._set_rules(slot, self.rules.get(slot, NO_RULES).after(NO_RULES, rules))
            case PutBackend(backend):
                self.backends[backend.slot] = backend
            case PutTable(slot, table):
                self._put_table(slot, table)  # Nobody writes into it, as of every table.
            case WriteTable(slot, places, slots):
                table = self.services[slot].table.copy()
                table[places] = slots
                self._put_table(slot, table)
            case PutServiceKey(key, slot):
                self.keys[key] = slot
                self.services[slot] = replace(self.services[slot], is_reachable=True)
            case DeleteServiceKey(key):
                slot = self.keys.pop(key)
                self.services[slot] = replace(self.services[slot], is_reachable=False)
            case DropTable(slot):
                self._put_table(slot, empty_table())
            case DeleteBackend(slot):
                del self.backends[slot]
            case DeleteService(slot):
                del self.services[slot]

    def _set_rules(self, slot: int, rules: Rules) -> None:
        if rules:
            self.rules[slot] = rules
        else:
            self.rules.pop(slot, None)

    def _put_table(self, slot: int, table: Table) -> None:
        table.setflags(write=False)
        self.services[slot] = replace(self.services[slot], table=table)
