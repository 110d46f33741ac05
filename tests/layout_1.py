"""Maps as LLB pinned them in layout 1, made from those of now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from llb_core.datapath import bpf_map, layout_1, pins
from llb_core.datapath.bpf_map import MapReader, MapWriter
from llb_core.datapath.layout import MAX_BACKENDS, MAX_SERVICES, MapSpec, MapType

_KINDS = {
    "dnat_table": (MapType.HASH, 1000),
    "snat_table": (MapType.HASH, 1000),
    "service_keys": (MapType.HASH, 2 * MAX_SERVICES),
    "services": (MapType.ARRAY, MAX_SERVICES),
    "backends": (MapType.ARRAY, MAX_BACKENDS),
    "maglev_tables": (MapType.ARRAY_OF_MAPS, MAX_SERVICES),
}


def pin_as_layout_1(name: str, maps: Mapping[str, MapReader]) -> dict[str, MapWriter]:
    """Pin maps of layout 1 that hold what those of now do, and remove the pins of now."""
    folder = pins.pin_root(name) / "1" / "ipv4"
    folder.mkdir(parents=True)
    made: dict[str, MapWriter] = {}
    for each, (kind, entries) in _KINDS.items():
        key, value = layout_1.RECORDS[each]
        spec = MapSpec(each, kind, key, value, entries)
        made[each] = MapWriter.of(pins.make(spec, folder / each))
        if each == "maglev_tables":
            _copy_tables(maps[each], made[each])
        else:
            for keys, values in maps[each].chunks():
                made[each].update_batch(keys, as_layout_1(each, values))
    for pattern in ("link_*", "jumps_*"):  # What runs goes on, by whatever it hangs and jumps by.
        for path in pins.pin_folder(name).glob(pattern):
            path.rename(folder / path.name)
    shutil.rmtree(pins.pin_folder(name).parent)
    return made


def as_layout_1(name: str, values: Any) -> Any:
    """Return values of now as layout 1 had them."""
    wanted = layout_1.RECORDS[name][1]
    if wanted.names is None:
        return values
    narrowed = np.zeros(len(values), dtype=wanted)
    for field in set(wanted.names) & set(values.dtype.names) - {"pad"}:
        narrowed[field] = values[field]
    if name in ("dnat_table", "snat_table"):
        narrowed["state"] &= 0x1FFF
    return narrowed


def _copy_tables(tables: MapReader, made: MapWriter) -> None:
    for slot in range(1, MAX_SERVICES):
        inner = bpf_map.open_inner(tables, slot)
        if inner is not None:
            made.update(slot, inner.fd)
            inner.close()
