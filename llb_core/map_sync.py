"""Carry plans out on the eBPF maps. The only module that writes one.

Beside plans it writes the record of settings, and it has the collector remove connections that are
over (`llb_core.collection`). It decides nothing: what to change is `planning.plan`'s, and what that
looks like in a map `map_records`'.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np

from llb_core.collection import Collector, CollectReport
from llb_core.config import LoadBalancerConfig
from llb_core.datapath import Family, bpf_map, layout
from llb_core.datapath.bpf_map import MapReader, MapWriter
from llb_core.datapath.mapped import HEAD, map_table, packed
from llb_core.errors import MapError
from llb_core.map_image import ARRAYS, MapImage
from llb_core.map_records import (
    backend_records,
    port_words,
    rule_records,
    service_key,
    service_record,
    settings_record,
)
from llb_core.model import (
    Installed,
    InstalledBackend,
    ServiceKey,
    Table,
)
from llb_core.past_connections import PastConnections
from llb_core.planning.changes import (
    Change,
    DeleteBackend,
    DeleteRules,
    DeleteService,
    DeleteServiceKey,
    DropTable,
    Plan,
    PutBackend,
    PutRules,
    PutService,
    PutServiceKey,
    PutTable,
    WriteTable,
)
from llb_core.planning.mirror import Mirror
from llb_core.rules_image import RulesImage
from llb_core.taking_over import missing

_FEW = 256
"""Counters of drops read at once: mostly there are none, and a value a CPU takes room."""


class MapSync:
    """The writer of the maps that one balancer has of one address family."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._records = layout.records(family.number)
        self._maps: dict[str, MapWriter] = {
            name: MapWriter.of(reader) for name, reader in family.maps.items()
        }
        self._collector = Collector(family)
        self._mirror: Mirror | None = None
        self._image = MapImage(family.maps)
        self._rules = RulesImage(family.maps["access_rules"])
        self._keys_right: tuple[Installed, bytes, bytes] | None = None
        """What was installed when all keys were right last, and what the map held then."""
        self._bits: tuple[Installed, Any] | None = None
        """The least that the filter of VIPs holds, and of what was installed then."""
        self._config: tuple[LoadBalancerConfig, Any] | None = None
        """The settings of the last time, and the record that says so."""
        self._lock = threading.Lock()

    def put_settings(
        self, settings: LoadBalancerConfig, private_index: int, *, is_carrying: bool = False
    ) -> bool:
        """Write the balancer's own settings, as far as they are of this family; packets see the
        old ones or the new, never a mix. Return False where they are there already.

        `is_carrying` says that connections may be in earlier maps still: for CARRYING_SECONDS from
        now a packet that belongs to none is dropped, to come again, and not left to the stack,
        which would reset it.
        """
        record = self._config_of(settings, private_index)
        record["carrying"] = (self._family.now() or 1) if is_carrying else 0
        with self._lock:
            record["host_ports"] = self._config_in_force()["host_ports"]
            return self._put_config(record[0])

    def _config_of(self, settings: LoadBalancerConfig, private_index: int) -> Any:
        """Return a record of these settings, the same again where they are those of the last time:
        it is asked for over and over."""
        if self._config is not None and self._config[0] is settings:
            known = self._config[1]
            known["private_ifindex"] = private_index
            return known
        record = settings_record(self._records, settings, self._family.ticks_per_second)
        record["private_ifindex"] = private_index
        self._config = settings, record
        return record

    def put_host_ports(self, ports: Collection[int]) -> bool:
        """Write which ports no new connection may be given; False where that was so before."""
        with self._lock:
            record = self._config_in_force()
            record["host_ports"] = port_words(frozenset(ports))
            return self._put_config(record)

    def _config_in_force(self) -> Any:
        """Return a copy of the record that packets go by."""
        current = int(self._maps["config_index"].lookup(0) or 0)
        return self._maps["configs"].lookup(current & 1)

    def _put_config(self, record: Any) -> bool:
        """Put a record in place of the one in force; False where that is the same."""
        current = int(self._maps["config_index"].lookup(0) or 0)
        known: Any = self._maps["configs"].lookup(current & 1)
        if known.tobytes() == record.tobytes() and current < 2:
            return False
        self._maps["configs"].update(1 - (current & 1), record)
        self._maps["config_index"].update(0, 1 - (current & 1))
        return True

    def listen(self, kinds: layout.EventKind, seconds: float) -> None:
        """Have the classifier tell of these kinds of events, for so long from now."""
        with self._lock:
            record: Any = self._maps["listening"].lookup(0)  # an array's place is always there
            until = self._family.now() + round(seconds * self._family.ticks_per_second)
            record["until"], record["kinds"] = until & 0xFFFFFFFF, int(kinds)
            self._maps["listening"].update(0, record)

    def installed(self) -> Installed:
        """Return what the maps hold: read once, and known since from what was written."""
        with self._lock:
            return self._known().installed()

    def apply(self, plan: Plan) -> None:
        """Carry a plan out, in its order. What fails raises MapError with what was to be done; a
        plan made anew from `installed()` goes on from there."""
        with self._lock:
            mirror = self._known()
            self._mirror = None  # not known, should this be cut short
            for _, run in itertools.groupby(plan, key=type):
                changes = list(run)
                try:
                    self._carry_out(changes, mirror)
                except MapError as error:
                    raise MapError(f"{changes[0]}: {error}") from error
                for change in changes:
                    mirror.carry_out(change)
            self._mirror = mirror

    def _known(self) -> Mirror:
        if self._mirror is None:
            self._image = MapImage(self._family.maps)
            self._rules.begin_anew()
            self._mirror = Mirror(self._family.installed())
            # A mark may be left of a daemon that was killed, or wanting for a withdrawn service.
            self._repair_keys(self._mirror)
            self._repair_filter(self._mirror)
        return self._mirror

    @property
    def has_connections(self) -> bool:
        """Whether there is any connection in the tables."""
        return next(self._maps["dnat_table"].chunks(), None) is not None

    def take_over(self, table: str, keys: Any, values: Any, *, only_missing: bool) -> int:
        """Write connections that another layout's table held into the one of that name; return how
        many. With only_missing those that are not there yet, or only as they were before."""
        stands = values["state"] & layout.STATE_MASK != layout.ConnectionState.CLAIMED
        keys, values = keys[stands], values[stands]
        if only_missing and len(keys):
            wanted = missing(keys, values, self._maps[table].chunks())
            keys, values = keys[wanted], values[wanted]
        self._maps[table].update_batch(keys, values)
        return len(keys)

    def repair(self) -> list[str]:
        """Put right what somebody else has changed in the maps since it was written; return what
        that was, a phrase each. Connections that were taken away can't be brought back."""
        with self._lock:
            mirror = self._mirror
            if mirror is None:
                return []  # A plan was cut short: the next turn reads the maps anew, and plans.
            done = []
            for name in ARRAYS:
                slots = self._image.changed_slots(name)
                if slots.size:
                    self._maps[name].update_batch(slots, self._image.wanted(name, slots))
                    done.append(f"{slots.size} records of the map {name}")
            done += self._repair_rules(mirror)
            done += self._repair_tables(mirror)
            done += self._repair_keys(mirror)
            done += self._repair_filter(mirror)
            return done

    def _repair_rules(self, mirror: Mirror) -> list[str]:
        def wanted() -> tuple[Any, Any]:
            none = np.zeros(0, dtype=self._records.rule_key), np.zeros(0, dtype=layout.U32)
            own = [rule_records(self._records, *each) for each in mirror.rules.items()]
            keys, values = zip(none, *own, strict=True)
            # Joined, records are in the host's byte order.
            return np.concatenate(keys).astype(none[0].dtype), np.concatenate(values)

        faults = self._rules.look(wanted)
        if not faults:
            return []
        # A strange one may have taken the place of ours, with other bits behind the prefix.
        self._maps["access_rules"].delete_batch(faults.strange)
        self._maps["access_rules"].update_batch(faults.missing, faults.values)
        return [f"{len(faults)} prefixes of the map access_rules"]

    def _repair_tables(self, mirror: Mirror) -> list[str]:
        done = []
        lost = self._image.lost_tables(mirror)
        if lost:
            self._put_tables([PutTable(slot, mirror.services[slot].table) for slot in lost])
            done.append("the tables of " + ", ".join(mirror.services[each].name for each in lost))
        for slot, places in self._image.changed_places(mirror):
            service = mirror.services[slot]
            self._write_places(slot, places, packed(service.table)[places])
            done.append(f"{places.size} places of the table of {service.name}")
        return done

    def _repair_keys(self, mirror: Mirror) -> list[str]:
        keys, of = self._maps["service_keys"], self._records.service_key
        texts, slots = keys.read_all()
        seen = mirror.installed(), texts.tobytes(), slots.tobytes()
        right = self._keys_right
        if right is not None and right[0] is seen[0] and right[1:] == seen[1:]:
            return []  # As mostly: a map lists its entries in the same order while none changes.
        found = {
            key.tobytes(): int(slot) for key, slot in zip(texts.astype(of), slots, strict=True)
        }
        wanted: dict[bytes, int] = {}
        marks: set[bytes] = set()
        done = []
        for slot, service in mirror.services.items():
            text, mark = (
                np.array([service_key(self._records, service.key, port)], dtype=of).tobytes()
                for port in (None, 0)
            )
            marks.add(mark)
            is_open = mirror.keys.get(service.key) == slot
            if is_open:
                wanted[text] = slot
            if mark not in found or (is_open and found.get(text) != slot):
                self._note_vip(service.key, slot)
                if is_open:
                    self._carry_out_one(PutServiceKey(service.key, slot))
                done.append(f"the entry of {service.key}")
        for text in found.keys() - wanted.keys() - marks:
            keys.delete(np.frombuffer(text, dtype=of)[0])
            done.append("an entry of service_keys that is none of ours")
        self._keys_right = None if done else seen
        return done

    def _repair_filter(self, mirror: Mirror) -> list[str]:
        installed = mirror.installed()
        if self._bits is None or self._bits[0] is not installed:
            bits = np.zeros(layout.VIP_FILTER_BITS, dtype=np.uint8)
            bits[[self._filter_place(each.key) for each in installed.services.values()]] = 1
            self._bits = installed, np.packbits(bits, bitorder="little").view("<u8")
        places, found = self._maps["vip_filter"].read_all()
        wanted = found | self._bits[1][places]
        lost = np.flatnonzero(wanted != found)
        if not lost.size:
            return []
        self._maps["vip_filter"].update_batch(places[lost], wanted[lost])
        return [f"{lost.size} words of the map vip_filter"]

    def collect(self, reset_idle: Collection[str] = ()) -> CollectReport:
        """Remove the connections that are over, and lone halves; count those that stay.

        The report holds those that are to be reset: of backends that are ending, and the idle ones
        of the services that `reset_idle` names.
        """
        return self._collector.collect(self.installed(), reset_idle)

    def connections(self) -> Iterator[tuple[Any, Any]]:
        """Yield the DNAT halves of all connections, keys and records, a chunk at a time."""
        return self._maps["dnat_table"].chunks()

    def end_connections(self, keys: Any, *, only_over: bool = False) -> Any:
        """Take connections out of the tables at once, and return those that were in them, as
        records of `layout.Records.ended`.

        `keys` are records of `dnat_table`'s keys, as `chunks()` of that map yields them. With
        only_over those alone that are over by now. Each is claimed before its record is read: none
        of its packets is forwarded since, so the numbers returned are those to reset it with
        (`datapath.resets.send_resets`).
        """
        return self._collector.end(keys, self.installed(), only_over=only_over)

    @property
    def past_connections(self) -> PastConnections:
        """The connections that there were until not long ago."""
        return self._collector.past

    def _carry_out(self, changes: list[Change], mirror: Mirror) -> None:
        """Carry out changes of one kind: in one batch where there may be thousands."""
        if isinstance(changes[0], PutBackend):
            self._put_backends([c.backend for c in changes if isinstance(c, PutBackend)], mirror)
        elif isinstance(changes[0], PutTable):
            self._put_tables([c for c in changes if isinstance(c, PutTable)])
        elif isinstance(changes[0], DeleteBackend):
            slots = np.array([c.slot for c in changes if isinstance(c, DeleteBackend)])
            self._put("backends", slots, np.zeros(len(slots), dtype=self._records.backend))
        elif isinstance(changes[0], DeleteService):
            self._delete_services({c.slot for c in changes if isinstance(c, DeleteService)}, mirror)
        else:
            for change in changes:
                self._carry_out_one(change)

    def _carry_out_one(self, change: Change) -> None:
        match change:
            case PutService():
                self._put_service(change)
            case PutRules(slot, rules):
                self._rules.begin_anew()
                self._maps["access_rules"].update_batch(*rule_records(self._records, slot, rules))
            case DeleteRules(slot, rules):
                self._rules.begin_anew()
                keys, _ = rule_records(self._records, slot, rules)
                self._maps["access_rules"].delete_batch(keys)
            case WriteTable(slot, places, slots):
                self._write_table(slot, places, slots)
            case PutServiceKey(key, slot):
                self._maps["service_keys"].update(service_key(self._records, key), slot)
            case DeleteServiceKey(key):
                self._maps["service_keys"].delete(service_key(self._records, key))
            case DropTable(slot):
                self._maps["maglev_tables"].delete(slot)
                bpf_map.forget_inner(self._maps["maglev_tables"], slot)

    def _note_vip(self, key: ServiceKey, slot: int) -> None:
        """Set the bit of a service's address and port in the filter, and the mark of its address.
        They go by the record, not by the key: its connections outlive a service that is withdrawn,
        and whatever is theirs or looks like it must not go to the stack."""
        word, bit = divmod(self._filter_place(key), 64)
        before = int(self._maps["vip_filter"].lookup(word) or 0)
        self._maps["vip_filter"].update(word, before | 1 << bit)
        self._maps["service_keys"].update(service_key(self._records, key, port=0), slot)

    def _filter_place(self, key: ServiceKey) -> int:
        return self._records.filter_place(key.endpoint.address, key.endpoint.port)

    def _put_service(self, change: PutService) -> None:
        self._note_vip(change.key, change.slot)
        services = self._maps["services"]
        before = services.lookup(change.slot)
        if before is None or not before["proto"]:
            self._maps["service_counters"].update(change.slot, np.zeros((), layout.COUNTERS))
            self._maps["service_loads"].update(change.slot, np.zeros((), layout.SERVICE_LOAD))
            self.forget_drops("service", [change.slot])
        records = service_record(self._records, change, self._family.ticks_per_second)
        self._put("services", [change.slot], records)

    def _put_backends(self, backends: list[InstalledBackend], mirror: Mirror) -> None:
        """Write records in one batch; counters of slots that were free begin anew."""
        slots = np.array([backend.slot for backend in backends], dtype=np.uint32)
        new = np.array([s for s in slots.tolist() if s not in mirror.backends], dtype=np.uint32)
        counters = self._maps["backend_counters"]
        counters.update_batch(new, counters.value_room(len(new)))
        self._maps["backend_loads"].update_batch(new, np.zeros(len(new), dtype=layout.I64))
        self.forget_drops("backend", new)
        self._put("backends", slots, backend_records(self._records, backends))

    def _put(self, name: str, slots: Any, records: Any) -> None:
        """Write records of services or backends, and remember them."""
        self._maps[name].update_batch(np.asarray(slots, dtype=np.uint32), records)
        self._image.note(name, slots, records)

    def forget_drops(self, of: str, slots: Any) -> None:
        """Take away what was counted for those who had these slots before."""
        counters = self._maps["drop_counters"]
        chunks = [keys for keys, _ in counters.chunks(_FEW)] if len(slots) else []
        for keys in chunks:
            counters.delete_batch(keys[np.isin(keys[of], slots)])

    def _put_tables(self, changes: list[PutTable]) -> None:
        """Fill new tables and put them in place by one call, which waits for all CPUs once."""
        inners: list[MapReader] = []
        try:
            for change in changes:
                inner = bpf_map.create_inner(len(change.table))
                inners.append(inner)
                map_table(inner, writable=True)[:] = packed(change.table)
            services = np.array([change.service_slot for change in changes], dtype=np.uint32)
            fds = np.array([inner.fd for inner in inners], dtype=np.uint32)
            self._maps["maglev_tables"].update_batch(services, fds)
            for change, inner in zip(changes, inners, strict=True):
                bpf_map.keep_inner(self._maps["maglev_tables"], change.service_slot, inner)
        finally:
            for inner in inners:
                inner.close()

    def _write_table(self, slot: int, places: Any, slots: Table) -> None:
        self._write_places(slot, places.astype(np.uint32) + np.uint32(HEAD), slots)

    def _write_places(self, slot: int, places: Any, slots: Any) -> None:
        inner = bpf_map.open_inner(self._maps["maglev_tables"], slot)
        if inner is None:
            raise MapError("the table is gone: it is written anew in the next turn")
        try:
            table = map_table(inner, writable=True)
        finally:
            inner.close()
        if places.max(initial=0) >= len(table):
            raise MapError("the table is another one: it is written anew in the next turn")
        table[places] = slots

    def _delete_services(self, slots: Collection[int], mirror: Mirror) -> None:
        """Clear the records, and take the marks of the addresses with them that are no other's."""
        for slot in slots:
            self._put("services", [slot], np.zeros(1, dtype=self._records.service))
        leave = self._marks(mirror.services[slot].key for slot in slots)
        stay = self._marks(each.key for each in mirror.services.values() if each.slot not in slots)
        for mark in leave - stay:
            self._maps["service_keys"].delete(mark)

    def _marks(self, keys: Iterable[ServiceKey]) -> set[tuple[object, ...]]:
        """Return what says of an address that there are services on it, or connections of one that
        was withdrawn: nothing of those may go to the stack, whatever port it is for."""
        return {service_key(self._records, key, port=0) for key in keys}
