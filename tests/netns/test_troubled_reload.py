"""A reload meets what nobody expects: a map that takes no more, a fault in the middle of it."""

from __future__ import annotations

import os
import struct

import pytest

from llb_core.datapath import bpf_syscall, pins
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.netns.conftest import called, one_more, start
from tests.netns.test_daemon import get, host_as_it_is, logged

pytestmark = pytest.mark.netns

_MAP_FREEZE = 22


def freeze(balancer: lab.Balancer, name: str) -> None:
    """Have the kernel take no more from anybody who writes into a map by bpf(2), for good."""
    fd = bpf_syscall.obj_get(pins.pin_folder(balancer.name, 4) / name)
    try:
        bpf_syscall.bpf(_MAP_FREEZE, struct.pack("=I", fd))
    finally:
        os.close(fd)


def test_a_reload_whose_turn_fails_says_so_and_keeps_traffic(balancer: lab.Balancer) -> None:
    """The services of before go on where they were, by addresses that the host still has."""
    start(balancer)
    freeze(balancer, "service_keys")
    new = "203.0.113.99"
    text = balancer.config.read_text().replace(lab.VIP, new)
    more = one_more("more", lab.ADDRESSES[4].other_vip).replace("backends.toml", "no-such.toml")
    lab.replace(balancer.config, text + more)

    failed = called(balancer, "reload", "--json")

    assert (failed.code, failed.out) == (1, "")
    why, complaint = failed.err.splitlines()
    assert f"{balancer.config}: taken over, but not carried out yet: " in why
    assert "Operation not permitted" in why
    assert complaint.startswith("llb: more: provider static: ")
    assert not logged(balancer, "reloaded /")
    assert not logged(balancer, "nothing is changed")
    assert f" {lab.VIP}/32" in host_as_it_is(balancer)[0]
    assert get(balancer) in {"b1", "b2", "b3"}


def test_a_vip_that_is_a_backends_address_is_refused_by_plan_and_reload(
    balancer: lab.Balancer,
) -> None:
    start(balancer)
    before = host_as_it_is(balancer)
    right = balancer.config.read_text()
    backend = balancer.lab.backends[0]
    lab.replace(balancer.config, right.replace(lab.VIP, backend.address))

    for command in ("plan", "reload"):
        refused = called(balancer, command)
        assert refused.code == 2
        assert f"services.web: provider static names {backend.endpoint}, which" in refused.err
        assert "which would be the balancer's own (the address of service " in refused.err
    assert host_as_it_is(balancer) == before
    assert get(balancer) in {"b1", "b2", "b3"}


def test_a_reload_that_a_fault_ends_midway_puts_everything_back(balancer: lab.Balancer) -> None:
    """Whatever the fault is: here a folder where a link is to be."""
    start(balancer)
    before = host_as_it_is(balancer)
    (pins.pin_folder(balancer.name, 4) / "link_99").mkdir()
    right = balancer.config.read_text()
    balancer.write_config(
        snat_addresses='["10.0.0.2"]', extra=one_more("more", lab.ADDRESSES[4].other_vip)
    )

    failed = called(balancer, "reload")

    assert failed.code == 1
    assert host_as_it_is(balancer) == before
    assert get(balancer) in {"b1", "b2", "b3"}
    (pins.pin_folder(balancer.name, 4) / "link_99").rmdir()
    lab.replace(balancer.config, right)
    assert called(balancer, "reload").err == "llb: there was nothing to change\n"
    wait_until(lambda: logged(balancer, "reloaded /"), lab.LIMIT, "a right one is taken")
