"""Prefixes of clients: whoever is treated alike before and after is treated alike in between."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llb_core.model import Access, Network
from llb_core.rules import NO_RULES, Rules, changes
from tests.bpf.model_admission import is_let_in

CLIENTS = [IPv4Address("192.0.2.0") + last for last in range(8)]
PREFIXES = [
    ip_network("0.0.0.0/0"),
    ip_network("192.0.2.0/29"),
    *ip_network("192.0.2.0/29").subnets(1),
    *ip_network("192.0.2.0/29").subnets(2),
    *ip_network("192.0.2.0/29").subnets(3),
]

Chosen = dict[Network, bool]


def rules(chosen: Chosen, family: int = 4) -> Rules:
    allowed = [each for each, allows in chosen.items() if allows]
    return Rules.of(allowed, [each for each in chosen if each not in allowed], family)


def access(chosen: Chosen) -> Access:
    if not chosen:
        return Access.OPEN
    return Access.DENY if any(chosen.values()) else Access.ALLOW


def on_the_way(old: Chosen, new: Chosen) -> Iterator[tuple[Access, Rules]]:
    """Yield what a packet may meet: after each single prefix that is written."""
    now, default = rules(old), access(old)
    put, deleted = changes(now, rules(new))
    yield default, now
    for place in range(len(put)):
        now = now.after(Rules(put.records[place : place + 1]), NO_RULES)
        yield default, now
    default = access(new)
    yield default, now
    for place in range(len(deleted)):
        now = now.after(NO_RULES, Rules(deleted.records[place : place + 1]))
        yield default, now


chosen = st.dictionaries(st.sampled_from(PREFIXES), st.booleans(), max_size=8)


@given(old=chosen, new=chosen)
def test_who_is_treated_alike_before_and_after_is_so_all_the_way(old: Chosen, new: Chosen) -> None:
    way = list(on_the_way(old, new))

    assert way[-1] == (access(new), rules(new))
    for client in CLIENTS:
        before, after = (is_let_in(client, access(each), rules(each)) for each in (old, new))
        if before == after:
            assert {is_let_in(client, *step) for step in way} == {before}


@given(old=chosen, new=chosen)
def test_only_differences_are_written(old: Chosen, new: Chosen) -> None:
    put, deleted = changes(rules(old), rules(new))

    assert len(put) == sum(old.get(each) is not allows for each, allows in new.items())
    assert len(deleted) == len(old.keys() - new.keys())
    assert changes(rules(new), rules(new)) == (NO_RULES, NO_RULES)


def test_each_family_gets_its_own() -> None:
    both: Chosen = {ip_network("10.0.0.0/8"): True, IPv6Network("2001:db8::/32"): False}

    assert str(rules(both, 4)) == "1 allowed, 0 denied"
    assert str(rules(both, 6)) == "0 allowed, 1 denied"
    assert rules(both, 6).records["high"].tolist() == [0x20010DB800000000]


@pytest.mark.parametrize("client", CLIENTS)
def test_longest_prefix_decides(client: IPv4Address) -> None:
    nested = rules({PREFIXES[1]: False, PREFIXES[2]: True, ip_network("192.0.2.1"): False})

    assert is_let_in(client, Access.ALLOW, nested) == (int(client) & 7 in (0, 2, 3))
