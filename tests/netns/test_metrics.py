"""What a real daemon tells Prometheus, held against the list of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.run_folder import RunFolder
from tests.netns.conftest import Balance, shown

pytestmark = pytest.mark.netns

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
LISTEN = "127.0.0.1:9310"

Described = dict[str, tuple[str, frozenset[str]]]


def documented() -> Described:
    """Every metric of the page: its type and labels."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", text))) for name, kind, text in rows}


def exposed(families: list[Metric]) -> Described:
    found: Described = {}
    for family in families:
        for sample in family.samples:
            if sample.name.endswith(("_created", "_sum", "_bucket")):
                continue
            name = sample.name.removesuffix("_count") if family.type == "histogram" else sample.name
            found[name] = (family.type, frozenset(sample.labels))
    return {
        name: ("counter" if name.endswith("_total") else kind, labels)
        for name, (kind, labels) in found.items()
        if not name.endswith("_created")
    }


def read(balancer: lab.Balancer, *where: str) -> list[Metric]:
    text = balancer.lab.lb.run("curl", "-sSf", "--compressed", *where).stdout
    return list(text_string_to_metric_families(text))


def test_tells_all_that_is_documented_and_no_more(balance: Balance) -> None:
    balancer = balance(extra=f'\n[api]\nlisten = "{LISTEN}"\n')
    balancer.lab.client.run("curl", "-sS", "-m", "30", f"http://{lab.VIP}:{lab.PORT}/")
    wait_until(lambda: balancer.control.get("/status")["connections"], lab.LIMIT, "it is counted")
    by_socket = read(balancer, "--unix-socket", str(RunFolder(balancer.name).socket), "llb/metrics")
    assert exposed(by_socket) == documented()
    over_tcp = read(balancer, f"http://{LISTEN}/metrics")
    assert exposed(over_tcp) == documented()
    (opened,) = (each for each in over_tcp if each.name == "llb_service_connections_opened")
    assert {each.labels["service"]: each.value for each in opened.samples} == {"web": 1, "echo": 0}
    (healthy,) = (each for each in over_tcp if each.name == "llb_backend_healthy")
    assert len(healthy.samples) == 6
    assert {each.value for each in healthy.samples} == {1}
    (ports,) = (each for each in over_tcp if each.name == "llb_backend_snat_ports_in_use")
    assert [each.value for each in ports.samples] == [1]


def test_serves_the_page_and_what_it_lives_on(balance: Balance) -> None:
    balancer = balance(extra=f'\n[api]\nlisten = "{LISTEN}"\n')

    def get(path: str) -> str:
        return balancer.lab.lb.run("curl", "-sSf", f"http://{LISTEN}{path}").stdout

    def page() -> Any:
        return json.loads(get("/page.json"))

    assert "<title>LLB</title>" in get("/")
    wait_until(lambda: page()["total"]["opened"], lab.LIMIT, "there are rates")
    url = f"http://{lab.VIP}:{lab.PORT}/?[1-20]"
    balancer.lab.client.run("curl", "-sS", "-m", "30", "-H", "Connection: close", url)
    wait_until(lambda: any(page()["total"]["opened"]), lab.LIMIT, "the rate of connections")
    balancer.lab.backends[0].kill()
    wait_until(lambda: page()["counts"]["unhealthy"], lab.LIMIT, "it is seen")
    (trouble, *_) = page()["troubles"]
    assert "1 of 3 backends unhealthy" in trouble["text"]
    assert any("turned unhealthy" in event["text"] for event in page()["events"])
    by_service = json.loads(shown(balancer, "status", "--json"))["services"]
    (web,) = (each for each in by_service if each["name"] == "web")
    assert list(web["reasons"]) == [balancer.lab.backends[0].endpoint]
    assert set(web["rates"]) == {"opened", "packets", "bytes", "drops"}
