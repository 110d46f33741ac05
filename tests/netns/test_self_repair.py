"""Somebody undoes what LLB has installed, while it runs: traffic goes on again by itself, and the
log says what was wrong."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from llb_core import config
from llb_core.datapath import Datapath, bpf_syscall
from llb_core.datapath.bpf_map import MapWriter
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.netns.conftest import BOTH_FAMILIES, Balance

pytestmark = [pytest.mark.netns, BOTH_FAMILIES]

INTERFACES = ("eth0", "eth1")
HAS_TCX = tuple(map(int, platform.release().split(".")[:2])) >= (6, 6)
STRANGERS = {4: "192.0.2.0/24", 6: "2001:db8:dead::/48"}
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.eth0.forwarding"}


def family_of(balancer: lab.Balancer) -> int:
    return 6 if ":" in balancer.lab.vip else 4


def delete_the_filters(balancer: lab.Balancer) -> None:
    """Or the links, where the kernel has TCX."""
    for path in links(balancer):
        path.unlink()
    for interface in INTERFACES:
        delete = ("tc", "filter", "del", "dev", interface, "ingress")
        balancer.lab.lb.run(*delete, check=not HAS_TCX)


def delete_the_qdisc(balancer: lab.Balancer) -> None:
    """Or detach the link of one interface."""
    if HAS_TCX:
        link = bpf_syscall.obj_get(links(balancer)[1])
        bpf_syscall.link_detach(link)
        os.close(link)
    else:
        balancer.lab.lb.run("tc", "qdisc", "del", "dev", "eth1", "clsact")


def links(balancer: lab.Balancer) -> list[Path]:
    """The pinned links, by the interfaces' numbers."""
    return sorted(lab.PINS.glob(f"{balancer.name}/*/*/link_*"))


def take_the_addresses(balancer: lab.Balancer) -> None:
    length = 32 if family_of(balancer) == 4 else 128
    balancer.lab.lb.run("ip", "addr", "del", f"{balancer.lab.vip}/{length}", "dev", "lo")


def switch_forwarding_off(balancer: lab.Balancer) -> None:
    balancer.lab.lb.run("sysctl", "-qw", f"{FORWARDING[family_of(balancer)]}=0")


def flush_the_services(balancer: lab.Balancer) -> None:
    """Every key of every service, and the records of all backends."""
    with balancer.lab.lb.entered():
        reading = Datapath.open_reading(config.load(balancer.config).loadbalancer)
    maps = reading.families[family_of(balancer)].maps
    keys, backends = (MapWriter.of(maps[name]) for name in ("service_keys", "backends"))
    for key in keys.read_all()[0]:
        keys.delete(key)
    slots = np.arange(backends.spec.entries, dtype=np.uint32)
    backends.update_batch(slots, np.zeros(len(slots), dtype=backends.spec.value))
    reading.close()


def flush_the_prefixes(balancer: lab.Balancer) -> None:
    """Every prefix of clients: those who are denied would get in."""
    with balancer.lab.lb.entered():
        reading = Datapath.open_reading(config.load(balancer.config).loadbalancer)
    rules = MapWriter.of(reading.families[family_of(balancer)].maps["access_rules"])
    keys, _ = rules.read_all()
    assert len(keys) == 1
    rules.delete_batch(keys)
    reading.close()


HARMS = {
    delete_the_filters: (
        "pinned the link of IPv{family} on eth1 again"
        if HAS_TCX
        else "hung the classifier of IPv{family} on eth1"
    ),
    delete_the_qdisc: "hung the classifier of IPv{family} on eth1",
    take_the_addresses: "added {vip} on lo",
    switch_forwarding_off: "forward",
    flush_the_prefixes: "wrote 1 prefixes of the map access_rules of IPv{family} anew",
    flush_the_services: "records of the map backends of IPv{family} anew",
}
"""And what is said of each."""


def test_traffic_goes_on_after_somebody_undid_what_is_installed(
    balance: Balance, family: int
) -> None:
    balancer = balance(family=family, service=f'deny = ["{STRANGERS[family]}"]')
    hosts = balancer.lab
    said: set[str] = set()
    with hosts.client.socket(family=family) as sock:
        sock.settimeout(30)
        sock.connect((hosts.vip, lab.PORT))
        for harm, template in HARMS.items():
            harm(balancer)
            text = template.format(family=family, vip=hosts.vip)
            wait_until(
                partial(is_repaired, balancer, harm), lab.LIMIT, f"{harm.__name__} is undone"
            )
            wait_until(lambda: answers(hosts), lab.LIMIT, "new connections are served")
            sock.sendall(b"GET /say/still HTTP/1.1\r\n\r\n")
            assert b"still" in sock.recv(1000), "the connection that there was goes on"
            # Acknowledged now, not 40 ms later, when the next harm is done: that would be reset.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            said.add(text)
    for text in said:
        assert len(told(balancer, text)) == 1, "twice within a minute is told once"


def is_repaired(balancer: lab.Balancer, harm: Callable[[lab.Balancer], None]) -> bool:
    """Say whether what was undone is there again, as the host itself says."""
    host, family = balancer.lab.lb, family_of(balancer)
    if harm is take_the_addresses:
        return balancer.lab.vip in host.run("ip", "addr", "show", "dev", "lo").stdout
    if harm is switch_forwarding_off:
        return host.run("sysctl", "-n", FORWARDING[family]).stdout.strip() == "1"
    if harm in (flush_the_services, flush_the_prefixes):
        return len(told(balancer, HARMS[harm].format(family=family))) == 1
    if HAS_TCX:
        try:
            infos = [bpf_syscall.pinned_link_info(path) for path in links(balancer)]
        except FileNotFoundError:  # A link's pin gives place to that of another just now.
            return False
        return len(infos) == len(INTERFACES) and all(info.interface for info in infos)
    listed = [host.run(*f"tc filter show dev {each} ingress".split()).stdout for each in INTERFACES]
    return all(balancer.name in each for each in listed)


def told(balancer: lab.Balancer, text: str) -> list[str]:
    """Return the lines of the log in which LLB says what it put right."""
    lines = balancer.log.read_text().splitlines()
    return [line for line in lines if "somebody changed" in line and text in line]


def answers(hosts: lab.Lab) -> bool:
    """Say whether the VIP answers a new connection."""
    done = hosts.client.run("curl", "-gsS", "-m", "2", hosts.url, check=False)
    return done.stdout.strip() in {"b1", "b2", "b3"}
