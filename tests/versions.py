"""Two versions of LLB whose maps differ, each of which takes over what the other has pinned: that
of now, and one whose connections' records are wider, with all fields but the first elsewhere.

As a program: `python -m tests.versions now|other llb-arguments…` is `llb` of that version.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llb_core import cli
from llb_core.datapath import layout, loader, pins
from llb_core.datapath.old_layouts import OLD_LAYOUTS, OldLayout
from llb_core.datapath.sources import amalgamate

NOW = layout.LAYOUT_VERSION
OTHER = NOW + 1

_CARRIED = {
    *("dnat_table", "snat_table", "service_keys", "services", "backends"),
    *("maglev_tables", "access_rules"),
}
Specs = Mapping[str, tuple[np.dtype[Any], np.dtype[Any]]]


def become(version: str) -> None:
    """Make this process one of that version, for good."""
    now = {family: _records(family) for family in pins.FAMILIES}
    wider = {family: _widened(layout.records(family)) for family in pins.FAMILIES}
    if version == "now":
        OLD_LAYOUTS[OTHER] = OldLayout(
            lambda family: {
                name: (key, wider[family] if name in ("dnat_table", "snat_table") else value)
                for name, (key, value) in now[family].items()
            },
            _convert,
        )
        return
    OLD_LAYOUTS[NOW] = OldLayout(lambda family: now[family], _convert)
    pins.LAYOUT_VERSION = OTHER
    for family, half in wider.items():
        of = layout.records(family)
        ended = [("key", of.flow_key), ("dnat_half", half), ("snat_half", half)]
        object.__setattr__(of, "nat_entry", half)
        object.__setattr__(of, "ended", np.dtype(ended))
    loader.amalgamate = lambda: widened_text(amalgamate())


def widened_text(text: str) -> str:
    """Return the classifier's text with the wider record."""
    text, records = re.subn(
        r"(\nstruct nat_entry \{.*?\n\t\};\n)", r"\1\t__u64 reserve;\n", text, flags=re.DOTALL
    )
    text, asserted = re.subn(
        r"_Static_assert\(sizeof\(struct nat_entry\)[^;]*;", "", text, flags=re.DOTALL
    )
    assert (records, asserted) == (1, 1)
    return text


def _records(family: int) -> Specs:
    specs = layout.map_specs(1000, family)
    return {each.name: (each.key, each.value) for each in specs if each.name in _CARRIED}


def _widened(of: layout.Records) -> np.dtype[Any]:
    fields: list[tuple[Any, ...]] = []
    for name in of.nat_entry.names or ():
        fields.append((name, of.nat_entry[name]))
        if name == "seen":
            fields.append(("reserve", "u8"))
    return np.dtype(fields)


def _convert(name: str, records: Any, family: int) -> Any:
    if name not in ("dnat_table", "snat_table"):
        return records
    wanted = layout.records(family).nat_entry
    converted = np.zeros(len(records), dtype=wanted)
    for field in set(wanted.names or ()) & set(records.dtype.names):
        converted[field] = records[field]
    return converted


def main() -> None:
    """Run `llb` of that version."""
    become(sys.argv[1])
    sys.argv[:] = ["llb", *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
