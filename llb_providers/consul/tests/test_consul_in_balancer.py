"""From Consul to the maps: without waiting for a poll, and nothing is lost on the way."""

from __future__ import annotations

import json
import math
from functools import partial
from ipaddress import ip_address, ip_network

import pytest
from llb_provider_consul import ConsulProvider

from llb_core.model import BackendMode
from llb_core.testing import MemoryBalancer, until
from llb_providers.consul.tests.conftest import Agent
from llb_providers.consul.tests.fake_consul import FakeConsul
from llb_providers.consul.tests.faults import hangs, says


def is_active(balancer: MemoryBalancer, count: int) -> bool:
    return len(balancer.active()) == count


def test_a_change_in_consul_is_in_the_map_before_anybody_asks_again(consul: Agent) -> None:
    """Without blocking queries, each of the changes would be seen ten minutes later."""
    consul.register("a", "10.0.0.1")
    consul.register("b", "10.0.0.2")
    with MemoryBalancer() as balancer:
        options = {"service": consul.service, "url": consul.url, "wait": "10m"}
        balancer.add(ConsulProvider, options)
        balancer.turn_until(lambda: len(balancer.active()) == 2)

        for expected in [1, 2] * 10:
            consul.maintain("a", is_on=expected == 1)
            balancer.turn_until(partial(is_active, balancer, expected), limit=60)


def test_an_instance_in_maintenance_drains_in_the_map(fake: FakeConsul) -> None:
    with MemoryBalancer() as balancer:
        balancer.add(ConsulProvider, {"service": "web", "url": fake.url})
        balancer.turn_until(lambda: len(balancer.active()) == 2)

        fake.maintain_node(is_on=True)

        balancer.turn_until(lambda: set(balancer.modes().values()) == {BackendMode.DRAINING})


def test_an_agent_that_hangs_holds_up_no_other_service(fake: FakeConsul) -> None:
    silent = FakeConsul()
    silent.fault = hangs
    silent.start()
    with MemoryBalancer() as balancer:
        for number in range(10):
            options = {"service": "web", "url": silent.url}
            balancer.add(ConsulProvider, options, service=f"silent-{number}")
        until(lambda: len(silent.health_requests()) == 10)

        balancer.add(ConsulProvider, {"service": "web", "url": fake.url}, service="other")
        balancer.turn_until(lambda: len(balancer.active("other")) == 2)

        assert len(silent.health_requests()) == 10, "each of them still waits for its first answer"
        assert not any(each.is_ready or each.error for each in balancer.sources[:10])
    silent.stop()


def instance(address: object = "10.0.0.7", port: object = 80, weight: object = 1) -> str:
    service = {"ID": "web-9", "Address": address, "Port": port, "Weights": {"Passing": weight}}
    return json.dumps({"Node": {"Node": "n9"}, "Service": service, "Checks": []})


GOOD = instance("10.0.0.1", 8080).replace("web-9", "web-1")
NAMED = "web-9 on node n9"
BAD = {
    "a surrogate": (
        instance("\ud800"),
        f'{NAMED}: address "\N{REPLACEMENT CHARACTER}" is not an IP',
    ),
    "a name": (
        instance("web.example"),
        f'{NAMED}: address "web.example" is not an IP address: reg',
    ),
    "NaN": (instance(weight=math.nan), f"{NAMED}: Service.Weights.Passing: NaN is not a whole num"),
    "a long number": (
        instance(weight=0).replace('"Passing": 0', f'"Passing": {"9" * 5000}'),
        f"{NAMED}: Service.Weights.Passing: Infinity is not a whole number",
    ),
    "negative": (instance(weight=-1), f"{NAMED}: Service.Weights.Passing: -1 is less than 0"),
    "no port": (instance(port=0), f"{NAMED}: it has no port: register it with one, or set the opt"),
    "IPv6": (instance("2001:db8::7"), f"{NAMED}: [2001:db8::7]:80 is IPv6, and the service is"),
    "multicast": (instance("224.0.0.7"), f"{NAMED}: 224.0.0.7 is not the address of one host"),
    "broadcast": (instance("10.0.0.255"), f"{NAMED}: 10.0.0.255 is not the address of one host"),
    "ours": (instance("10.0.0.254"), f"{NAMED}: 10.0.0.254:80 is the balancer's own (loadbalan"),
    "elsewhere": (instance("10.9.0.7"), f"{NAMED}: 10.9.0.7:80 is in no network of loadbalance"),
    "too many": (
        ",".join(instance(f"10.0.0.{2 + port % 200}", port) for port in range(1, 10_001)),
        f"{NAMED}: more than 10000 backends for one service: have fewer named, or share them",
    ),
}


@pytest.mark.parametrize(("bad", "fault"), BAD.values(), ids=BAD)
def test_bad_input_names_the_instance_and_the_last_good_answer_stays(
    fake: FakeConsul, caplog: pytest.LogCaptureFixture, bad: str, fault: str
) -> None:
    fake.fault = says(200, f"[{GOOD}]")
    cidrs = [ip_network("10.0.0.0/24")]
    with MemoryBalancer(families=frozenset({4}), backend_cidrs=cidrs) as balancer:
        source = balancer.add(ConsulProvider, {"service": "web", "url": fake.url})
        source.ours = {ip_address("10.0.0.254"): "loadbalancer.snat_addresses"}
        balancer.turn_until(lambda: is_active(balancer, 1), limit=30)
        good = balancer.active()
        fake.fault = says(200, f"[{GOOD},{bad}]")
        until(lambda: source.error and caplog.messages, limit=30)
        assert not balancer.turn().plan
        assert balancer.active() == good
        (message,) = caplog.messages
        assert message.startswith("web: provider consul: ")
        assert fault in message
        assert "; its last answer stays (1 backend, " in message
        fake.fault = says(200, "[]")
        balancer.turn_until(lambda: not balancer.active(), limit=30)
