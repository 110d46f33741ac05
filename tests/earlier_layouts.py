"""Maps as LLB pinned them in an earlier layout, made from those of now."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llb_core.datapath import bpf_map, bpf_syscall, pins
from llb_core.datapath.bpf_map import MapReader, MapWriter
from llb_core.datapath.layout import (
    INNER_MAP_FLAG,
    INNER_TABLE,
    MAX_BACKENDS,
    MAX_RULES,
    MAX_SERVICES,
    MMAPABLE,
    NO_PREALLOC,
    U32,
    MapSpec,
    MapType,
)
from llb_core.datapath.mapped import read_table
from llb_core.datapath.old_layouts import OLD_LAYOUTS
from llb_core.datapath.pinning import pin

_KINDS = {
    "dnat_table": (MapType.HASH, 1000),
    "snat_table": (MapType.HASH, 1000),
    "service_keys": (MapType.HASH, 2 * MAX_SERVICES),
    "services": (MapType.ARRAY, MAX_SERVICES),
    "backends": (MapType.ARRAY, MAX_BACKENDS),
    "maglev_tables": (MapType.ARRAY_OF_MAPS, MAX_SERVICES),
    "access_rules": (MapType.LPM_TRIE, MAX_RULES, NO_PREALLOC),
}
_FAMILIES = {1: (4,), 2: (4, 6), 3: (4, 6)}
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
        spec = MapSpec(each, kind, key, value, *size)
        if each == "maglev_tables":
            made[each] = _make_tables(version, spec, folder / each)
            _copy_tables(version, maps[each], made[each])
        else:
            made[each] = MapWriter.of(pins.make(spec, folder / each))
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


def _make_tables(version: int, spec: MapSpec, path: Path) -> MapWriter:
    with _table(version, 7) as prototype:
        pin(bpf_map.create(spec, prototype.fd), path)
    return MapWriter(spec, bpf_syscall.obj_get(path))


def _copy_tables(version: int, tables: MapReader, made: MapWriter) -> None:
    for slot in range(1, MAX_SERVICES):
        inner = bpf_map.open_inner(tables, slot)
        if inner is not None:
            table = read_table(inner)
            inner.close()
            with _table(version, table.size) as old:
                old.update_batch(
                    np.arange(1 + table.size, dtype=np.uint32),
                    np.concatenate(([table.size], table)).astype(np.uint32),
                )
                made.update(slot, old.fd)


@contextlib.contextmanager
def _table(version: int, places: int) -> Iterator[MapWriter]:
    """A table as those layouts had them: a place was a word, and the first their number."""
    flags = INNER_MAP_FLAG | (MMAPABLE if version > 1 else 0)
    spec = replace(INNER_TABLE, value=U32, entries=1 + places, flags=flags)
    table = MapWriter(spec, bpf_map.create(spec))
    try:
        yield table
    finally:
        table.close()
