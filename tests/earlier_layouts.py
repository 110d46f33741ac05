"""Maps as LLB pinned them in an earlier layout, made from those of now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from llb_core.datapath import bpf_map, pins
from llb_core.datapath.bpf_map import MapReader, MapWriter
from llb_core.datapath.layout import (
    MAX_BACKENDS,
    MAX_RULES,
    MAX_SERVICES,
    NO_PREALLOC,
    MapSpec,
    MapType,
)
from llb_core.datapath.old_layouts import OLD_LAYOUTS

_KINDS = {
    "dnat_table": (MapType.HASH, 1000),
    "snat_table": (MapType.HASH, 1000),
    "service_keys": (MapType.HASH, 2 * MAX_SERVICES),
    "services": (MapType.ARRAY, MAX_SERVICES),
    "backends": (MapType.ARRAY, MAX_BACKENDS),
    "maglev_tables": (MapType.ARRAY_OF_MAPS, MAX_SERVICES),
    "access_rules": (MapType.LPM_TRIE, MAX_RULES, NO_PREALLOC),
}
_FAMILIES = {1: (4,), 2: (4, 6)}
Maps = Mapping[str, MapReader]


def pin_as_layout(
    version: int, name: str, families: Mapping[int, Maps]
) -> dict[int, dict[str, MapWriter]]:
    """Pin maps of that layout that hold what those of now do, and remove the pins of now."""
    made = {
        family: _pin_family(version, name, family, maps)
        for family, maps in families.items()
        if family in _FAMILIES[version]
    }
    shutil.rmtree(pins.pin_folder(name).parent)
    return made


def _pin_family(version: int, name: str, family: int, maps: Maps) -> dict[str, MapWriter]:
    folder = pins.pin_root(name) / str(version) / f"ipv{family}"
    folder.mkdir(parents=True)
    made: dict[str, MapWriter] = {}
    for each, (key, value) in OLD_LAYOUTS[version].records(family).items():
        kind, *size = _KINDS[each]
        made[each] = MapWriter.of(pins.make(MapSpec(each, kind, key, value, *size), folder / each))
        if each == "maglev_tables":
            _copy_tables(maps[each], made[each])
        else:
            for keys, values in maps[each].chunks():
                made[each].update_batch(keys, _as_then(version, each, values, value))
    for pattern in ("link_*", "jumps_*"):  # What runs goes on, by whatever it hangs and jumps by.
        for path in pins.pin_folder(name, family).glob(pattern):
            path.rename(folder / path.name)
    return made


def _as_then(version: int, name: str, values: Any, wanted: np.dtype[Any]) -> Any:
    """Return values of now as that layout had them."""
    if wanted.names is None:
        return values
    changed = np.zeros(len(values), dtype=wanted)
    for field in set(wanted.names) & set(values.dtype.names) - {"pad"}:
        changed[field] = values[field]
    if version == 1 and name in ("dnat_table", "snat_table"):
        changed["state"] &= 0x1FFF
    return changed


def _copy_tables(tables: MapReader, made: MapWriter) -> None:
    for slot in range(1, MAX_SERVICES):
        inner = bpf_map.open_inner(tables, slot)
        if inner is not None:
            made.update(slot, inner.fd)
            inner.close()
