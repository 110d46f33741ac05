"""Columns of texts, held against the same texts written one by one."""

from __future__ import annotations

import ipaddress
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llb_core.api.address_texts import Endpoints
from llb_core.api.text_columns import Texts, beside, joined, numbers, padded, texts
from llb_core.datapath.layout import records

SOME = st.text(alphabet="ab.:[]19é", max_size=20).map(str.encode)
EDGES = [each + near for exponent in (0, 4, 8, 12, 16, 19) for each in (10**exponent,)
         for near in (-1, 0, 1)] + [2**16, 2**32 - 1, 2**64 - 1]  # fmt: skip


def written(column: Texts, count: int) -> list[bytes]:
    """The texts of a column as they come out beside others."""
    rows = beside([b"<", column, b">\n"], count)
    assert rows.shape == (count, column.width + 3)
    return [line[1:-1].rstrip(b" ") for line in rows.tobytes().splitlines()]


@given(st.lists(st.tuples(SOME, SOME, SOME), min_size=1, max_size=40))
def test_texts_are_put_one_behind_the_other(rows: list[tuple[bytes, bytes, bytes]]) -> None:
    columns = [texts(each) for each in zip(*rows, strict=True)]

    assert written(joined(*columns), len(rows)) == [b"".join(row) for row in rows]


@given(st.lists(SOME, min_size=1, max_size=20), SOME)
def test_one_text_stands_in_every_row(rows: list[bytes], one: bytes) -> None:
    column = joined(texts([one]), texts(rows), texts([one]))

    assert written(column, len(rows)) == [one + row + one for row in rows]


@given(st.lists(st.integers(0, 2**64 - 1) | st.sampled_from(EDGES), max_size=50))
def test_numbers_are_written_whole(some: list[int]) -> None:
    assert written(numbers(np.array(some, dtype=np.uint64)), len(some)) == [
        b"%d" % number for number in some
    ]


def test_a_column_is_as_wide_as_asked_or_as_its_longest_text() -> None:
    for width in (1, 3, 8, 9, 30):
        rows = beside([padded(texts([b"abc", b""]), width)], 2)
        assert rows.tobytes() == b"abc".ljust(max(width, 3)) + b" " * max(width, 3)


def addresses_of_ipv6() -> list[ipaddress.IPv6Address]:
    """Every way for groups to be zero, and random ones."""
    dice = random.Random(6)
    found = []
    for zeros in range(256):
        for _ in range(4):
            groups = [dice.choice((1, 0xF, 0x10, 0xABC, 0xFFFF)) for _ in range(8)]
            groups = [0 if zeros >> n & 1 else group for n, group in enumerate(groups)]
            found.append(ipaddress.IPv6Address(b"".join(g.to_bytes(2, "big") for g in groups)))
    # Python writes these as IPv4 from 3.13 on.
    return [each for each in found if each.ipv4_mapped is None]


def addresses_of_ipv4() -> list[ipaddress.IPv4Address]:
    dice = random.Random(4)
    octets = (0, 1, 9, 10, 99, 100, 255)
    return [ipaddress.IPv4Address(bytes(dice.choices(octets, k=4))) for _ in range(2_000)]


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_endpoints_are_written_as_everywhere_else(family: int) -> None:
    of = records(family)
    some = addresses_of_ipv4() if family == 4 else addresses_of_ipv6()
    ports = [1, 80, 9_999, 10_000, 65_535]
    column = np.zeros(len(some), dtype=[("address", of.address), ("port", ">u2")])
    for row, address in enumerate(some):
        column[row] = (of.pack(address), ports[row % len(ports)])

    found = written(Endpoints(of).texts(column["address"], column["port"]), len(some))

    form = "{}:{}" if family == 4 else "[{}]:{}"
    assert [each.decode() for each in found] == [
        form.format(address, ports[row % len(ports)]) for row, address in enumerate(some)
    ]
