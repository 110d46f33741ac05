"""The records of layout 1, frozen as they were: IPv4 alone, maglev tables alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath import layout_2
from llb_core.model import Policy
from llb_core.planning.states import ANSWERED, ASSURED, STATE_MASK, ConnectionState

NAT_ENTRY = np.dtype(
    [
        ("state", "u4"),
        ("seen", "u4"),
        ("new_src", ">u4"),
        ("new_dst", ">u4"),
        ("new_sport", ">u2"),
        ("new_dport", ">u2"),
        ("addr_delta", "u4"),
        ("port_delta", "u4"),
        ("backend", "u4"),
        ("service", "u4"),
        ("fin_ack", "u4"),
        ("next_hop", ">u4"),
        ("ifindex", "u4"),
        ("mtu", "u4"),
        ("checked", "u4"),
        ("opened", "u4"),
        ("packets", "u4"),
        ("bytes", "u8"),
    ]
)
SERVICE = np.dtype(
    [
        ("address", ">u4"),
        ("port", ">u2"),
        ("proto", "u1"),
        ("pad", "u1"),
        ("timeouts", "u4", 5),
        ("milliseconds", "u4", 5),
        ("name", "S64"),
    ]
)
BACKEND = np.dtype(
    [
        ("address", ">u4"),
        ("port", ">u2"),
        ("mode", "u2"),
        ("service", "u4"),
        ("next_hop", ">u4"),
        ("ifindex", "u4"),
        ("mtu", "u4"),
        ("weight", "u4"),
    ]
)
# Keys are the same in the next layout, whose records are frozen, too.
_NEXT = layout_2.records(4)
RECORDS = {
    "dnat_table": (_NEXT["dnat_table"][0], NAT_ENTRY),
    "snat_table": (_NEXT["snat_table"][0], NAT_ENTRY),
    "service_keys": _NEXT["service_keys"],
    "services": (_NEXT["services"][0], SERVICE),
    "backends": (_NEXT["backends"][0], BACKEND),
    "maglev_tables": _NEXT["maglev_tables"],
}


def convert(name: str, records: npt.NDArray[Any], family: int) -> npt.NDArray[Any]:
    """Return values of a map in the layout of now, by way of the next one: what was not there yet
    is as it was by default.

    A connection that has got as far as it takes today to be spared in a flood is marked so.
    """
    wanted = layout_2.records(family)[name][1]
    if wanted.names is None:
        return records
    converted = np.zeros(len(records), dtype=wanted)
    for field in set(wanted.names or ()) & set(records.dtype.names or ()) - {"pad"}:
        converted[field] = records[field]
    if name == "services":
        converted["affinity_prefix"] = Policy().affinity_prefix
    if name in ("dnat_table", "snat_table"):
        state = records["state"] & STATE_MASK
        is_tcp = (state >= ConnectionState.ESTABLISHED) & (state <= ConnectionState.CLOSED)
        is_udp = (state == ConnectionState.UDP) & ((records["state"] & ANSWERED) != 0)
        converted["state"] |= np.where(is_tcp | is_udp, ASSURED, 0).astype(np.uint32)
    return layout_2.convert(name, converted, family)
