"""The records of layout 3, frozen as they were: a place of a service's table was a word of its own,
all else is as now."""

from __future__ import annotations

from typing import Any

import numpy as np

from llb_core.datapath import layout_2


def records(family: int) -> dict[str, tuple[np.dtype[Any], np.dtype[Any]]]:
    """Return the maps of an address family that are carried over, with their keys and values."""
    maps = layout_2.records(family)
    key, _ = maps["dnat_table"]
    half = nat_entry(family)
    return {**maps, "dnat_table": (key, half), "snat_table": (key, half)}


def nat_entry(family: int) -> np.dtype[Any]:
    """Return the record of one half of a connection."""
    address = np.dtype(">u4") if family == 4 else np.dtype((">u4", 4))
    return np.dtype(
        [
            ("state", "u4"),
            ("seen", "u4"),
            ("bytes", "u8"),
            ("new_src", address),
            ("new_dst", address),
            ("new_sport", ">u2"),
            ("new_dport", ">u2"),
            ("addr_delta", "u2"),
            ("port_delta", "u2"),
            ("backend", "u2"),
            ("service", "u2"),
            ("next", "u4"),
            ("ack", "u4"),
            ("packets", "u4"),
            ("checked", "u2"),
            ("mtu", "u2"),
            ("ifindex", "u4"),
            ("next_hop", address),
            ("opened", "u4"),
            *([("pad", "u1", 4)] if family == 6 else []),
        ]
    )
