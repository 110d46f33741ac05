"""The table of cases: what came before, a packet in, the verdict and the packet out.

`CASES` holds them by address family; most are the same for both.
"""

from __future__ import annotations

from tests.bpf.cases import checksums, connections, errors, frames, pieces, refusals, strangers
from tests.bpf.cases.case import Case as Case
from tests.bpf.cases.ipv4 import ipv4
from tests.bpf.cases.ipv6 import ipv6
from tests.bpf.harness.family import FAMILIES, using

_ALONE = {4: ipv4, 6: ipv6}


def _of(family: int) -> list[Case]:
    with using(family):
        return [
            *connections.opening(),
            *connections.established(),
            *connections.datagrams(),
            *refusals.undeliverable(),
            *refusals.sources(),
            *strangers.not_ours(),
            *frames.tagged(),
            *frames.for_many(),
            *strangers.fragments(),
            *strangers.malformed(),
            *errors.errors(),
            *pieces.pieces(),
            *checksums.sizes(),
            *checksums.values(),
            *_ALONE[family](),
        ]


CASES = {family: _of(family) for family in FAMILIES}
