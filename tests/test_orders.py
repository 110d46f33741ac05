"""Operators' orders: whom they mean, and how they are kept."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from llb_core.errors import ConfigurationError, HostError
from llb_core.model import BackendOrders, Endpoint, Order, OrderKind
from llb_core.orders import Orders, Selection

endpoint = Endpoint.parse

WEB = ("web", endpoint("10.0.0.2:80"))
WEB_TLS = ("web", endpoint("10.0.0.2:443"))
API = ("api", endpoint("10.0.0.2:80"))
OTHER = ("api", endpoint("10.0.0.3:80"))
KNOWN = frozenset({WEB, WEB_TLS, API, OTHER})


@pytest.mark.parametrize(
    ("backend", "service", "expected"),
    [
        pytest.param("10.0.0.2:80", None, {WEB, API}, id="of every service"),
        pytest.param("10.0.0.2", None, {WEB, WEB_TLS, API}, id="on every port"),
        pytest.param("10.0.0.2:80", "api", {API}, id="of one service"),
        pytest.param("10.0.0.2", "web", {WEB, WEB_TLS}, id="every port of one service"),
    ],
)
def test_selects_the_backends_that_are_meant(
    backend: str, service: str | None, expected: set[tuple[str, Endpoint]]
) -> None:
    assert Selection.parse(backend, service).of(KNOWN) == expected


@pytest.mark.parametrize(
    ("backend", "service", "message"),
    [
        ("10.0.0.9:80", None, "no service has a backend 10.0.0.9:80: see llb backends"),
        ("10.0.0.3:80", "web", "web has no backend 10.0.0.3:80: see llb backends"),
        ("10.0.0.3:80", "wbe", 'no service "wbe" has backends: see llb backends'),
    ],
    ids=["backend", "of that service", "service"],
)
def test_says_so_when_nobody_is_meant(backend: str, service: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Selection.parse(backend, service).of(KNOWN)


@pytest.mark.parametrize(
    "text", ["", "web", "10.0.0", "10.0.0.2:0", "10.0.0.2:65536", "10.0.0.2:x"]
)
def test_refuses_what_names_no_backend(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a backend: write it like"):
        Selection.parse(text)


@pytest.mark.parametrize(
    ("text", "port"), [("[2001:db8::2]:80", 80), ("2001:db8::2", None), ("[2001:db8::2]", None)]
)
def test_reads_an_ipv6_backend(text: str, port: int | None) -> None:
    assert Selection.parse(text) == Selection(ipaddress.ip_address("2001:db8::2"), port)


def test_orders_outlive_the_daemon_with_who_when_and_why(tmp_path: Path) -> None:
    path = tmp_path / "llb.orders.json"
    drain = Order(OrderKind.DRAIN, "root for alice", 1000.5, "new kernel", deadline=1300.5)
    weight = Order(OrderKind.WEIGHT, "root", 1001.0, weight=7)
    orders = Orders(path)
    orders.give({WEB, API}, drain)
    orders.give({WEB}, weight)
    orders.take_back({API}, OrderKind.DRAIN)
    assert Orders(path).standing == {WEB: BackendOrders(traffic=drain, weight=weight)}
    assert orders.standing == Orders(path).standing


def test_a_drain_that_is_done_is_so_for_the_next_daemon_too(tmp_path: Path) -> None:
    path = tmp_path / "llb.orders.json"
    orders = Orders(path)
    orders.give({WEB, API}, Order(OrderKind.DRAIN, "root", 1000.5))
    orders.give({WEB}, Order(OrderKind.WEIGHT, "root", 1001.0, weight=7))
    orders.note_done(WEB, 1010.25)
    orders.note_done(API, 1011.5)
    orders.note_done(API, None)
    assert Orders(path).standing == orders.standing
    done = {name: each.traffic.done for name, each in orders.standing.items() if each.traffic}
    assert done == {WEB: 1010.25, API: None}


def test_disabling_takes_the_place_of_draining(tmp_path: Path) -> None:
    orders = Orders(tmp_path / "llb.orders.json")
    orders.give({WEB}, Order(OrderKind.DRAIN))
    orders.give({WEB}, Order(OrderKind.DISABLE))
    assert orders.standing == {WEB: BackendOrders(traffic=Order(OrderKind.DISABLE))}
    assert orders.under(OrderKind.DISABLE) == {WEB}
    assert orders.under(OrderKind.DRAIN) == frozenset()
    orders.take_back({WEB}, OrderKind.DISABLE)
    assert orders.standing == {}


def test_there_are_none_at_first(tmp_path: Path) -> None:
    assert Orders(tmp_path / "llb.orders.json").standing == {}


def test_reads_what_version_0_1_wrote_and_where(tmp_path: Path) -> None:
    before = tmp_path / "before.json"
    before.write_text('{"drained": [{"service": "web", "backend": "10.0.0.2:80"}]}')
    now = tmp_path / "state" / "llb.orders.json"
    orders = Orders(now, before=before)
    assert orders.standing == {WEB: BackendOrders(traffic=Order(OrderKind.DRAIN))}
    orders.give({API}, Order(OrderKind.DISABLE, "root"))
    assert Orders(now, before=before).standing.keys() == {WEB, API}
    orders.take_back({WEB}, OrderKind.DRAIN)
    assert Orders(now, before=before).standing.keys() == {API}, "the old file counts no more"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"drained": [{}]}',
        '{"drained": [{"service": "web", "backend": "10.0.0.2"}]}',
        '{"orders": [{"service": "a", "backend": "10.0.0.2:80", "order": "dance"}]}',
        '{"orders": [{"service": "a", "backend": "10.0.0.2:80", "order": "weight"}]}',
        '{"orders": [{"service": "a", "backend": "10.0.0.2:80", "order": "weight", "weight": -1}]}',
    ],
)
def test_does_not_forget_orders_that_it_cannot_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "llb.orders.json"
    path.write_text(text)
    with pytest.raises(HostError, match="the operators' orders can't be read"):
        Orders(path)


def test_an_order_that_cannot_be_kept_is_not_carried_out(tmp_path: Path) -> None:
    orders = Orders(tmp_path / "state" / "llb.orders.json")
    (tmp_path / "state").touch()  # a file in the folder's place
    with pytest.raises(HostError, match="can't be kept, and is not carried out"):
        orders.give({WEB}, Order(OrderKind.DRAIN))
    assert orders.standing == {}
