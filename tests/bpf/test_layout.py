"""C and Python agree about every byte that they share: records, constants, and the choosing hash.

The headers are compiled with the host's own compiler: this needs gcc, and no root.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import ipaddress
import re
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llb_core.datapath import layout
from llb_core.datapath.installed import ACCESS_NUMBERS, MODE_NUMBERS, SCHEDULER_NUMBERS
from llb_core.datapath.sources import SOURCES
from llb_core.model import Address, BackendMode, Limits, Timeouts
from tests.bpf.harness.tables import Flow
from tests.bpf.harness.tags import MOST_TAGS
from tests.bpf.model import OPENING_ROOM, OPENING_SEARCH, PORT_TRIES, PRESSED_TRIES
from tests.bpf.model_connection import WINDOW
from tests.bpf.model_fragments import SECONDS
from tests.bpf.model_select import (
    RAMP_STEPS,
    SEED,
    finish,
    part_of_share,
    select_hash,
    source_hash,
)

PRELUDE = """
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <arpa/inet.h>
#undef __always_inline
#define __always_inline inline __attribute__((always_inline, unused))
#define bpf_ntohl ntohl
#define bpf_ntohs ntohs
#define bpf_htons htons
#include "limits.h"
#include "types.h"
#include "verdict.h"
"""
REWRITTEN = {"new_src": "src", "new_dst": "dst", "new_sport": "sport", "new_dport": "dport"}
RECORDS = {
    "flow_key": {},
    "nat_entry": REWRITTEN,
    "ended": {},
    "fragment_key": {},
    "fragment": REWRITTEN | {"new_id": "id"},
    "refusal_bucket": {},
    "service_key": {},
    "service": {},
    "backend": {},
    "cidr": {},
    "config": {},
    "counters": {},
    "event": {},
    "listening": {},
    "drop_example": {},
    "drop_key": {},
    "service_load": {},
    "source_key": {},
    "source_load": {},
    "rule_key": {},
    "correction": {},
}
"""By the name of the structure: how C names the fields whose name in Python is another."""
FAMILIES = (4, 6)
ON_THE_WIRE = {"src", "dst", "sport", "dport", "new_src", "new_dst", "new_sport", "new_dport"}
ON_THE_WIRE |= {"address", "mask", "port", "snat", "next_hop", "new_id"}
ON_THE_WIRE |= {"network", "from", "to", "from_port", "to_port"}
FLAGS = ("ANSWERED", "CLIENT_FIN", "BACKEND_FIN", "BACKEND_CLOSED_FIRST", "RESET", "ASSURED")
LIMITS = ("MAX_SERVICES", "VIP_FILTER_BITS", "MAX_BACKENDS", "MAX_CIDRS", "MAX_SNAT_ADDRESSES",
          "MAX_COLLECT", "MAX_END", "DROP_EXAMPLES", "MAX_FRAGMENTS", "REFUSAL_BUCKETS",
          "MAX_SOURCES", "MAX_RULES", "MAX_DROP_COUNTERS", "CARRYING_SECONDS")  # fmt: skip


SAME_IN_THE_MODEL = {
    "MAX_TAGS": MOST_TAGS,
    "MAX_PORT_TRIES": PORT_TRIES,
    "PRESSED_PORT_TRIES": PRESSED_TRIES,
    "OPENING_SEARCH": OPENING_SEARCH,
    "OPENING_ROOM": OPENING_ROOM,
    "CT_WINDOW": WINDOW,
    "FRAGMENT_SECONDS": SECONDS,
}


def compile_c(source: str, folder: Path, *flags: str) -> Path:
    """Compile a C file that includes headers of `bpf/`, and return what came of it."""
    made = folder / "made"
    subprocess.run(
        [
            "gcc",
            "-O1",
            "-Wall",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-I",
            SOURCES,
            "-x",
            "c",
            "-",
            "-o",
            made,
            *flags,
        ],
        input=source,
        text=True,
        check=True,
    )
    return made


def values_in_c(folder: Path, *expressions: str, family: int = 4) -> dict[str, int]:
    """Return what expressions of C come to, with the headers of `bpf/` included."""
    prints = "".join(f'printf("%ld\\n", (long)({each}));' for each in expressions)
    source = f"{PRELUDE}\nint main(void) {{ {prints} return 0; }}"
    made = compile_c(source, folder, f"-DFAMILY={family}")
    answer = subprocess.run([made], check=True, capture_output=True, text=True).stdout
    return dict(zip(expressions, map(int, answer.split()), strict=True))


@functools.cache
def enumerators(header: str, name: str) -> tuple[str, ...]:
    """Return the names of an enumeration, in the order of the header."""
    text = (SOURCES / header).read_text()
    found = re.search(rf"enum {name} \{{(.*?)\}}", text, re.DOTALL)
    assert found is not None
    body = re.sub(r"/\*.*?\*/", "", found[1], flags=re.DOTALL)
    return tuple(re.findall(r"\b([A-Z_]+)\b", body))


def record_of(name: str, family: int) -> np.dtype[Any]:
    """Return a record of `layout` by the name that it has in C."""
    found: np.dtype[Any] | None = getattr(layout.records(family), name, None)
    return getattr(layout, name.upper()) if found is None else found


@pytest.mark.parametrize("number", FAMILIES)
@pytest.mark.parametrize("name", RECORDS)
def test_record_has_the_same_bytes_in_both_languages(
    name: str, number: int, tmp_path: Path
) -> None:
    record, renamed = record_of(name, number), RECORDS[name]
    names = record.names or ()
    members = {each: f"((struct {name} *)0)->{renamed.get(each, each)}" for each in names}

    in_c = values_in_c(
        tmp_path,
        f"sizeof(struct {name})",
        *(f"offsetof(struct {name}, {renamed.get(each, each)})" for each in names),
        *(f"sizeof({member})" for member in members.values()),
        family=number,
    )

    assert in_c[f"sizeof(struct {name})"] == record.itemsize
    for each in names:
        kind, offset = _field(record, each)
        assert in_c[f"offsetof(struct {name}, {renamed.get(each, each)})"] == offset, each
        assert in_c[f"sizeof({members[each]})"] == kind.itemsize, each


@pytest.mark.parametrize("number", FAMILIES)
@pytest.mark.parametrize("name", RECORDS)
def test_record_of_c_has_no_member_that_python_does_not_know(name: str, number: int) -> None:
    """Offsets and sizes that agree leave no room but at the end; this leaves none at all."""
    record = record_of(name, number)
    sizes = [_field(record, each)[0].itemsize for each in record.names or ()]

    assert sum(sizes) == record.itemsize


@pytest.mark.parametrize("number", FAMILIES)
def test_addresses_and_ports_lie_in_network_order(number: int) -> None:
    for name in RECORDS:
        record = record_of(name, number)
        for field in record.names or ():
            kind, _ = _field(record, field)
            if kind.names:
                continue  # a record in a record, which is looked at by itself
            while kind.subdtype:
                kind = kind.base
            assert (kind.byteorder == ">") == (field in ON_THE_WIRE), f"{name}.{field}"


@pytest.mark.parametrize("number", FAMILIES)
def test_address_has_as_many_words_in_both_languages(number: int, tmp_path: Path) -> None:
    in_c = values_in_c(tmp_path, "ADDR_WORDS", family=number)

    assert in_c == {"ADDR_WORDS": layout.records(number).address_words}


@given(address=st.ip_addresses())
@example(IPv4Address("0.0.0.0"))
@example(IPv6Address("::"))
@example(IPv6Address("2001:db8::0:0:1"))
def test_address_comes_out_of_a_field_as_it_was_put_in(address: Address) -> None:
    records = layout.records(address.version)
    keys = np.zeros(3, dtype=records.flow_key)

    keys[1]["dst"] = records.pack(address)

    assert records.unpack(keys[1]["dst"]) == records.unpack(keys["dst"][1]) == address
    assert records.words(keys["dst"])[1].tobytes() == address.packed
    assert records.words(keys["dst"]).shape == (3, records.address_words)


@pytest.mark.parametrize("number", FAMILIES)
def test_address_of_the_other_family_fits_no_field(number: int) -> None:
    other = IPv6Address("2001:db8::1") if number == 4 else IPv4Address("192.0.2.1")

    with pytest.raises(ValueError, match=f"{other} is no IPv{number} address"):
        layout.records(number).pack(other)


def test_verdicts_are_the_same(tmp_path: Path) -> None:
    in_c = values_in_c(tmp_path, *enumerators("verdict.h", "verdict"))

    assert in_c.pop("VERDICTS") == len(layout.Verdict)
    assert in_c == {verdict.name: verdict.value for verdict in layout.Verdict}


def test_verdicts_fall_into_pass_forward_and_drop(tmp_path: Path) -> None:
    names = [verdict.name for verdict in layout.Verdict]

    passes = values_in_c(tmp_path, *(f"verdict_is_pass({name})" for name in names))
    forwards = values_in_c(tmp_path, *(f"verdict_is_forward({name})" for name in names))

    for name in names:
        assert bool(passes[f"verdict_is_pass({name})"]) == name.startswith("PASS")
        assert bool(forwards[f"verdict_is_forward({name})"]) == name.startswith("FORWARD")


def test_states_are_the_same(tmp_path: Path) -> None:
    in_c = values_in_c(tmp_path, *enumerators("types.h", "ct_state"))

    assert in_c == {f"CT_{state.name}": state.value for state in layout.ConnectionState}


def test_flags_of_the_state_are_the_same(tmp_path: Path) -> None:
    in_c = values_in_c(tmp_path, "CT_STATE_MASK", *(f"CT_{flag}" for flag in FLAGS))

    assert in_c.pop("CT_STATE_MASK") == layout.STATE_MASK
    for flag in FLAGS:
        assert in_c[f"CT_{flag}"] == getattr(layout, flag), flag


def test_modes_of_a_backend_are_the_same(tmp_path: Path) -> None:
    in_c = values_in_c(tmp_path, *enumerators("types.h", "backend_mode"))

    assert in_c.pop("BACKEND_FREE") == 0
    assert in_c == {f"BACKEND_{mode.name}": MODE_NUMBERS[mode] for mode in BackendMode}


def test_kinds_of_events_and_reasons_of_ends_are_the_same(tmp_path: Path) -> None:
    kinds = values_in_c(tmp_path, *enumerators("types.h", "event_kind"))
    reasons = values_in_c(tmp_path, *enumerators("types.h", "end_reason"))

    assert kinds == {f"EVENT_{kind.name}": kind.value for kind in layout.EventKind}
    assert reasons == {f"END_{reason.name}": reason.value for reason in layout.EndReason}


def test_schedulers_are_the_same(tmp_path: Path) -> None:
    in_c = values_in_c(tmp_path, *enumerators("types.h", "scheduler"))

    assert in_c == {
        f"SCHEDULER_{scheduler.name}": number for scheduler, number in SCHEDULER_NUMBERS.items()
    }


def test_access_and_limits_are_the_same(tmp_path: Path) -> None:
    access = values_in_c(tmp_path, *enumerators("types.h", "access"))
    limits = values_in_c(tmp_path, *enumerators("types.h", "limit"))
    rules = values_in_c(tmp_path, *enumerators("types.h", "rule"))

    assert access == {f"ACCESS_{each.name}": number for each, number in ACCESS_NUMBERS.items()}
    assert limits.pop("LIMITS") == len(layout.LIMIT_NAMES)
    assert list(limits.values()) == list(range(len(layout.LIMIT_NAMES)))
    assert tuple(Limits.__dataclass_fields__) == layout.LIMIT_NAMES
    assert rules == {"RULE_ALLOW": layout.RULE_ALLOW, "RULE_DENY": layout.RULE_DENY}


def test_what_can_be_corrected_is_the_same(tmp_path: Path) -> None:
    found = re.findall(r"CORRECT_(\w+) = (\d+)", (SOURCES / "collect.h").read_text())

    assert {name: int(number) for name, number in found} == {
        each.name: each.value for each in layout.Corrected
    }


def test_timeouts_are_the_same(tmp_path: Path) -> None:
    in_c = values_in_c(tmp_path, *enumerators("types.h", "timeout"))

    assert in_c.pop("TIMEOUTS") == len(layout.TIMEOUT_NAMES)
    assert in_c == {f"TIMEOUT_{n.upper()}": place for place, n in enumerate(layout.TIMEOUT_NAMES)}
    assert set(layout.TIMEOUT_NAMES) == set(Timeouts.__dataclass_fields__)


def test_limits_are_the_same_without_flags(tmp_path: Path) -> None:
    """So that whoever compiles the sources by hand gets what the daemon does."""
    in_c = values_in_c(tmp_path, *LIMITS, *SAME_IN_THE_MODEL, "OPENING_PLACES")

    assert {name: in_c.pop(name) for name in SAME_IN_THE_MODEL} == SAME_IN_THE_MODEL
    assert in_c.pop("OPENING_PLACES") == layout.MAX_OPENING
    assert in_c == {limit: getattr(layout, limit) for limit in LIMITS}


@pytest.mark.parametrize("number", FAMILIES)
def test_family_and_limits_are_all_passed_on(number: int) -> None:
    flags = dict(flag.removeprefix("-D").split("=") for flag in layout.compile_flags(7, number))

    assert flags == {"FAMILY": str(number), "MAX_CONNECTIONS": "7", "OPENING_PLACES": "3"} | {
        limit: str(getattr(layout, limit)) for limit in LIMITS
    }


@pytest.mark.parametrize("number", FAMILIES)
def test_maps_are_those_that_the_classifier_opens(number: int) -> None:
    text = (SOURCES / "maps.h").read_text()
    pinned = re.findall(r'BPF_TABLE_PINNED\("([a-z_]+)\$?[a-z]*",[^;]*?PIN "/([a-z_]+)"\)', text)
    pinned += re.findall(r'section\("maps/(ringbuf):" PIN "/([a-z_]+)"\)', text)

    assert {name: kind.upper() for kind, name in pinned} == {
        spec.name: spec.type.name for spec in layout.map_specs(1, number)
    }


EXPORTED = (
    "hash_of",
    "source_hash_of",
    "part_of",
    "finish_of",
    "seed",
    "equal",
    "contains",
    "is_zero",
    "place",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ctypes.CDLL]:
    """The hash of bpf/select.h and the comparing of addresses, in a library for each family."""
    source = (SOURCES / "select.h").read_text()
    only_the_hash = source.split("/* The slot of the backend")[0] + "#endif\n"
    exported = """
unsigned hash_of(struct flow_key *key) { return select_hash(key); }
unsigned source_hash_of(struct flow_key *key, unsigned bits)
{
	return select_source_hash(key, bits);
}
unsigned part_of(unsigned started, unsigned ramp, unsigned now)
{
	return select_ramp(started, ramp, now);
}
unsigned finish_of(unsigned value) { return select_finish(value); }
unsigned seed(void) { return SELECT_SEED; }
unsigned equal(struct addr *a, struct addr *b) { return addr_equal(a, b); }
unsigned contains(struct cidr *cidr, struct addr *a) { return cidr_contains(cidr, a); }
unsigned is_zero(struct addr *a) { return addr_is_zero(a); }
unsigned place(struct addr *a, unsigned port) { return addr_place(a, port); }
"""
    made = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(f"library{family}")
        flags = ("-shared", "-fPIC", f"-DFAMILY={family}")
        path = compile_c(PRELUDE + only_the_hash + exported, folder, *flags)
        made[family] = ctypes.CDLL(str(path))
        for name in EXPORTED:
            getattr(made[family], name).restype = ctypes.c_uint32
    return made


TWO_ADDRESSES = st.one_of(
    *(st.tuples(st.ip_addresses(v=family), st.ip_addresses(v=family)) for family in FAMILIES)
)


@given(
    ends=TWO_ADDRESSES,
    sport=st.integers(0, 65535),
    dport=st.integers(0, 65535),
    protocol=st.sampled_from([6, 17]),
)
@example((IPv4Address("192.0.2.10"), IPv4Address("203.0.113.10")), 5000, 80, 6)
@example((IPv6Address("2001:db8::a"), IPv6Address("2001:db8:1::10")), 5000, 80, 6)
def test_hash_is_the_same(
    library: dict[int, ctypes.CDLL],
    ends: tuple[Address, Address],
    sport: int,
    dport: int,
    protocol: int,
) -> None:
    src, dst = ends
    records, hashing = layout.records(src.version), library[src.version]
    whole = (records.pack(src), records.pack(dst), sport, dport, protocol, (0, 0, 0))
    key = np.array([whole], dtype=records.flow_key)

    in_c = hashing.hash_of(ctypes.c_void_p(key.ctypes.data))

    assert in_c == select_hash(Flow(src, dst, sport, dport, protocol))
    assert hashing.finish_of(ctypes.c_uint32(in_c)) == finish(in_c)
    assert hashing.seed() == SEED


@given(src=st.ip_addresses(), bits=st.integers(1, 128))
@example(IPv4Address("192.0.2.10"), 24)
@example(IPv4Address("255.255.255.255"), 1)
@example(IPv6Address("2001:db8::a"), 64)
@example(IPv6Address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 33)
def test_hash_of_the_source_is_the_same(
    library: dict[int, ctypes.CDLL], src: Address, bits: int
) -> None:
    bits = min(bits, src.max_prefixlen)
    records = layout.records(src.version)
    key = np.zeros(1, dtype=records.flow_key)
    key[0]["src"] = records.pack(src)

    in_c = library[src.version].source_hash_of(ctypes.c_void_p(key.ctypes.data), bits)

    assert in_c == source_hash(src, bits)


@given(
    started=st.integers(0, 2**32 - 1),
    ramp=st.integers(0, 3_600_000),
    since=st.integers(0, 3_700_000),
)
def test_part_of_the_share_is_the_same(
    library: dict[int, ctypes.CDLL], started: int, ramp: int, since: int
) -> None:
    now = (started + since) % 2**32

    in_c = library[4].part_of(ctypes.c_uint32(started), ramp, ctypes.c_uint32(now))

    assert in_c == part_of_share(started, ramp, now)
    assert in_c == RAMP_STEPS or 0.1 * RAMP_STEPS - 1 <= in_c <= max(
        RAMP_STEPS * since / ramp, 0.1 * RAMP_STEPS
    )


@given(ends=TWO_ADDRESSES, flipped=st.integers(0, 127), length=st.integers(0, 128))
def test_addresses_are_compared_in_every_bit(
    library: dict[int, ctypes.CDLL], ends: tuple[Address, Address], flipped: int, length: int
) -> None:
    """Two that differ in one bit, two that have little in common, and networks of every size."""
    one, other = ends
    bits = one.max_prefixlen
    near = one.__class__(int(one) ^ 1 << flipped % bits)
    compare = library[one.version]
    for each in (one, near, other):
        network = ipaddress.ip_network((one, length % (bits + 1)), strict=False)
        mask = one.__class__(int(network.netmask))
        cidr = network.network_address.packed + mask.packed

        assert compare.equal(one.packed, each.packed) == (one == each)
        assert compare.contains(cidr, each.packed) == (each in network)
        assert compare.is_zero(each.packed) == (int(each) == 0)
        in_python = layout.records(each.version).filter_place(each, flipped)
        assert compare.place(each.packed, flipped) == in_python


def test_hash_never_changes() -> None:
    """Balancers of two releases, side by side, must choose alike."""
    assert source_hash(IPv4Address("192.0.2.10"), 24) == source_hash(IPv4Address("192.0.2.0"), 32)
    assert source_hash(IPv4Address("192.0.2.0"), 32) == 510_002_778
    flow = Flow(IPv4Address("192.0.2.10"), IPv4Address("203.0.113.10"), 5000, 80, 6)

    assert select_hash(flow) == 306_350_407
    over_ipv6 = Flow(IPv6Address("2001:db8::a"), IPv6Address("2001:db8:1::10"), 5000, 80, 6)
    assert select_hash(over_ipv6) == 827_374_385


def _field(record: np.dtype[np.void], name: str) -> tuple[np.dtype[Any], int]:
    """Return a field's type and offset."""
    assert record.fields is not None
    kind, offset = record.fields[name][:2]
    return kind, offset


def _members(kind: type[enum.IntEnum]) -> dict[str, int]:
    return {member.name: member.value for member in kind}
