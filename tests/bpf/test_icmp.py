"""ICMP errors: what they end, how many are sent, and that no jump is left half done."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from llb_core.datapath import bpf_syscall
from llb_core.datapath.layout import Verdict
from tests.bpf.cases.errors import ROUTER, error
from tests.bpf.harness import talk
from tests.bpf.harness.packets import (
    at_backend,
    at_client,
    from_client,
    question_at_backend,
    reply_at_client,
    tcp,
)
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import (
    BACKEND,
    CLIENT,
    OTHER_CLIENT,
    PORT,
    PRIVATE,
    PUBLIC,
    SNAT,
    VIP,
    Interface,
)

pytestmark = pytest.mark.root

_PROG_GET_FD_BY_ID = 13


def test_unreachable_port_of_the_backend_ends_its_datagrams(rig: Rig) -> None:
    talk.replied(rig)

    outcome = rig.send(error(BACKEND, SNAT, "port unreachable", question_at_backend()), PRIVATE)

    assert outcome.verdict is Verdict.FORWARD_ERROR
    assert rig.pairs() == {}


@pytest.mark.parametrize(
    ("given", "kind", "reporter", "quoted", "arrives_on"),
    [
        (talk.replied, "port unreachable", ROUTER, question_at_backend, PRIVATE),
        (talk.replied, "prohibited", BACKEND, question_at_backend, PRIVATE),
        (talk.replied, "time exceeded", BACKEND, question_at_backend, PRIVATE),
        (talk.replied, "port unreachable", CLIENT, reply_at_client, PUBLIC),
        (talk.established, "port unreachable", BACKEND, lambda: at_backend("A"), PRIVATE),
    ],
    ids=["a router's", "prohibited", "time exceeded", "the client's", "a segment"],
)
def test_no_other_error_changes_anything(
    rig: Rig,
    given: talk.Given,
    kind: str,
    reporter: str,
    quoted: talk.Given,
    arrives_on: Interface,
) -> None:
    given(rig)
    before = rig.pairs()
    ours = SNAT if arrives_on == PRIVATE else VIP

    outcome = rig.send(error(reporter, ours, kind, quoted()), arrives_on)  # type: ignore[call-arg]

    assert outcome.verdict is Verdict.FORWARD_ERROR
    assert rig.pairs() == before


@pytest.mark.parametrize("lost", ["the client's half", "the backend's half"])
def test_error_about_a_connection_with_one_half_goes_nowhere(rig: Rig, lost: str) -> None:
    talk.established(rig)
    ((flow, (half, _)),) = rig.pairs().items()
    if lost == "the client's half":
        rig.dnat.remove(flow)
        packet, arrives_on = error(BACKEND, SNAT, "too big", at_backend("A")), PRIVATE
    else:
        rig.snat.remove(half.becomes.reverse)
        packet, arrives_on = error(CLIENT, VIP, "too big", at_client("A")), PUBLIC

    assert rig.send(packet, arrives_on).verdict is Verdict.DROP_ENDING


def test_an_address_is_told_so_often_and_no_more(rig: Rig) -> None:
    _leave(rig, 3, of=range(1, rig.refusals.spec.entries))

    assert _verdicts(rig, CLIENT, 5) == [Verdict.REFUSE_TTL] * 3 + [Verdict.DROP_TTL] * 2
    assert _verdicts(rig, OTHER_CLIENT, 1) == [Verdict.REFUSE_TTL]


def test_all_are_told_so_often_and_no_more(rig: Rig) -> None:
    _leave(rig, 3, of=[0])

    assert _verdicts(rig, CLIENT, 2) == [Verdict.REFUSE_TTL] * 2
    assert _verdicts(rig, OTHER_CLIENT, 2) == [Verdict.REFUSE_TTL, Verdict.DROP_TTL]


def _leave(rig: Rig, tokens: int, of: Iterable[int]) -> None:
    """Leave so many tokens in buckets, to which none come soon."""
    keys = np.array(list(of), dtype=rig.refusals.spec.key)
    values = rig.refusals.value_room(len(keys))
    second = rig.datapath.ticks_per_second
    values["filled"] = (rig.datapath.now() + 1000 * second) & 0xFFFFFFFF  # it wraps
    values["credit"] = tokens * second
    rig.refusals.update_batch(keys, values)


def test_bucket_fills_again(rig: Rig) -> None:
    second = rig.datapath.ticks_per_second
    rig.refusals.update(0, (rig.datapath.now() - second, 0))

    assert _verdicts(rig, CLIENT, 1) == [Verdict.REFUSE_TTL]


def _verdicts(rig: Rig, client: str, count: int) -> list[Verdict]:
    """Send packets that are too old, without filling the buckets in between."""
    return [
        rig.send(tcp(client, VIP, PORT, 80, "S", ttl=1), fill_buckets=False).verdict
        for _ in range(count)
    ]


def test_packet_whose_jump_fails_is_dropped_untouched(rig: Rig) -> None:
    """As it would be if the array's entries were gone."""
    talk.established(rig)

    with nowhere_to_jump(rig):
        refused = rig.send(from_client("A", ttl=1))
        reported = rig.send(error(CLIENT, VIP, "too big", at_client("A")))

    assert refused.verdict is Verdict.DROP_TTL
    assert reported.verdict is Verdict.DROP_ERROR


@contextmanager
def nowhere_to_jump(rig: Rig) -> Iterator[None]:
    """Empty the array of jumps for a while."""
    jumps = rig.datapath.program_fds["jumps"]
    key, value = ctypes.c_uint32(), ctypes.c_uint32()
    programs = {}
    for key.value in range(bpf_syscall.map_info(jumps).max_entries):
        bpf_syscall.map_lookup(jumps, ctypes.addressof(key), ctypes.addressof(value))
        attribute = struct.pack("=III", value.value, 0, 0)
        programs[key.value] = bpf_syscall.bpf(_PROG_GET_FD_BY_ID, attribute)
        bpf_syscall.map_delete(jumps, ctypes.addressof(key))
    try:
        yield
    finally:
        for key.value, value.value in programs.items():
            bpf_syscall.map_update(jumps, ctypes.addressof(key), ctypes.addressof(value))
            os.close(value.value)
