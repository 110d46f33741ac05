"""The records of layout 2, frozen as they were: what connections hold was wider than now."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath import layout

_TABLES = ("dnat_table", "snat_table")


def records(family: int) -> dict[str, tuple[np.dtype[Any], np.dtype[Any]]]:
    """Return the maps of an address family that are carried over, with their keys and values."""
    address = _address(family)
    key, u32 = _flow_key(address), np.dtype("u4")
    return {
        "dnat_table": (key, nat_entry(family)),
        "snat_table": (key, nat_entry(family)),
        "service_keys": (_service_key(address), u32),
        "services": (u32, service(family)),
        "backends": (u32, backend(family)),
        "maglev_tables": (u32, u32),
        "access_rules": (_rule_key(address), u32),
    }


def nat_entry(family: int) -> np.dtype[Any]:
    """Return the record of one half of a connection."""
    address = _address(family)
    return np.dtype(
        [
            ("state", "u4"),
            ("seen", "u4"),
            ("bytes", "u8"),
            ("new_src", address),
            ("new_dst", address),
            ("new_sport", ">u2"),
            ("new_dport", ">u2"),
            ("addr_delta", "u4"),
            ("port_delta", "u4"),
            ("backend", "u4"),
            ("service", "u4"),
            ("next", "u4"),
            ("ack", "u4"),
            ("packets", "u4"),
            ("checked", "u4"),
            ("ifindex", "u4"),
            ("mtu", "u4"),
            ("next_hop", address),
            ("opened", "u4"),
            ("place", "u4"),
            *([("pad", "u1", 4)] if family == 6 else []),
        ]
    )


def service(family: int) -> np.dtype[Any]:
    """Return the record of a service."""
    return np.dtype(
        [
            ("address", _address(family)),
            ("port", ">u2"),
            ("proto", "u1"),
            ("scheduler", "u1"),
            ("timeouts", "u4", 5),
            ("affinity_prefix", "u4"),
            ("slow_start", "u4"),
            ("access", "u4"),
            ("limits", "u4", 4),
            ("milliseconds", "u4", 5),
            ("name", "S64"),
        ]
    )


def backend(family: int) -> np.dtype[Any]:
    """Return the record of a backend of a service."""
    address = _address(family)
    return np.dtype(
        [
            ("address", address),
            ("port", ">u2"),
            ("mode", "u2"),
            ("service", "u4"),
            ("next_hop", address),
            ("ifindex", "u4"),
            ("mtu", "u4"),
            ("weight", "u4"),
            ("started", "u4"),
        ]
    )


def convert(name: str, values: npt.NDArray[Any], family: int) -> npt.NDArray[Any]:
    """Return values of a map in the layout of now."""
    if name not in _TABLES:
        return values
    wanted = layout.records(family).nat_entry
    converted = np.zeros(len(values), dtype=wanted)
    for field in set(wanted.names or ()) - {"pad"}:
        column = values[field]
        if field.endswith("_delta"):
            column = _folded(_folded(column))
        converted[field] = column.astype(wanted[field].base, copy=False)
    # Places in the ring are not carried over.
    if name == "dnat_table":
        converted["ifindex"] = 0
    return converted


def _folded(sums: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (sums & 0xFFFF) + (sums >> 16)


def _address(family: int) -> np.dtype[Any]:
    return np.dtype(">u4") if family == 4 else np.dtype((">u4", 4))


def _flow_key(address: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(
        [
            ("src", address),
            ("dst", address),
            ("sport", ">u2"),
            ("dport", ">u2"),
            ("proto", "u1"),
            ("pad", "u1", 3),
        ]
    )


def _service_key(address: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype([("address", address), ("port", ">u2"), ("proto", "u1"), ("pad", "u1")])


def _rule_key(address: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype([("length", "u4"), ("service", "u4"), ("address", address)])
