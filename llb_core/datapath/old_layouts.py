"""Maps of earlier layouts, as they are found pinned: read, and in the records of now. Read only.

Whoever changes a record raises `layout.LAYOUT_VERSION`, freezes the records as they were in a file
`layout_N.py` with a function `convert`, and names it in OLD_LAYOUTS; those of the layouts before
are to convert into what is new, too. Then `llb_core.migration` carries connections over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llb_core.datapath import bpf_syscall, layout_1, layout_2, layout_3
from llb_core.datapath.bpf_map import Bookmark, MapReader, Records
from llb_core.datapath.layout import MapSpec, MapType
from llb_core.errors import LayoutMismatch

Convert = Callable[[str, Any, int], Any]


@dataclass(frozen=True, slots=True)
class OldLayout:
    """A layout of before: of an address family the maps that are read, with their keys and values,
    and what the values become."""

    records: Callable[[int], Mapping[str, tuple[np.dtype[Any], np.dtype[Any]]]]
    convert: Convert


OLD_LAYOUTS = {
    1: OldLayout(lambda _: layout_1.RECORDS, layout_1.convert),
    2: OldLayout(layout_2.records, layout_2.convert),
    3: OldLayout(layout_3.records, lambda _name, values, _family: values),
}


class ConvertedReader(MapReader):
    """A map of an old layout, whose values are read as those of now."""

    def __init__(self, spec: MapSpec, fd: int, family: int, convert: Convert) -> None:
        super().__init__(spec, fd)
        self._family, self._convert = family, convert

    def chunks(
        self, size: int = 32_768, bookmark: Bookmark | None = None
    ) -> Iterator[tuple[Records, Records]]:
        """Yield keys and values of all entries, a chunk at a time."""
        for keys, values in super().chunks(size, bookmark):
            yield keys, self._convert(self.spec.name, values, self._family)


def open_old(root: Path, version: int, family: int) -> dict[str, MapReader]:
    """Open the maps of an old layout below a balancer's pins; LayoutMismatch where one is not as
    that layout says."""
    old = OLD_LAYOUTS[version]
    maps: dict[str, MapReader] = {}
    for name, (key, value) in old.records(family).items():
        path = root / str(version) / f"ipv{family}" / name
        try:
            fd = bpf_syscall.obj_get(path)
        except OSError as error:
            raise LayoutMismatch(
                f"{path}: can't be opened ({error.strerror}), so its connections can't be carried "
                "over: llb detach takes them away"
            ) from None
        info = bpf_syscall.map_info(fd)
        if (info.key_size, info.value_size) != (key.itemsize, value.itemsize):
            os.close(fd)
            raise LayoutMismatch(
                f"{path}: is not of layout {version}, so its connections can't be carried over: "
                "llb detach takes them away"
            )
        spec = MapSpec(name, MapType(info.type), key, value, info.max_entries, info.flags)
        maps[name] = ConvertedReader(spec, fd, family, old.convert)
    return maps
