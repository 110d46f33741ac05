"""llb.toml: what it says, and the line that names what is wrong with it."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from llb_core.config import Config, load, parse
from llb_core.errors import ConfigurationError
from llb_core.guard import Guard
from llb_core.model import (
    Endpoint,
    ServiceKey,
    Timeouts,
    Transport,
    WhenAllUnhealthy,
    WhenUnhealthy,
)

BALANCER = """
[loadbalancer]
public_interface  = "eth0"
private_interface = "eth1"
backend_cidrs     = ["10.0.0.0/24"]
snat_addresses    = ["10.0.0.1"]
"""
WEB = """
[services.web]
address = "203.0.113.10"
port    = 80
[services.web.provider]
name = "static"
path = "backends.toml"
"""
ALL = """
[loadbalancer]
name              = "edge-1"
public_interface  = ["eth0", "eth2"]
private_interface = "eth1"
backend_cidrs     = ["10.0.0.0/24", "10.1.0.0/16"]
snat_addresses    = ["10.0.0.1", "10.0.0.9"]
snat_ports        = "2000-2999"
manage_addresses  = false
max_connections   = 1234

[services.web]
address            = ["203.0.113.10"]
port               = 80
protocol           = "tcp"
scheduler          = "maglev"
when_unhealthy     = "end"
when_all_unhealthy = "none"

[services.web.timeouts]
opening = "1500ms"
established = "1h"
closing = "1m"
closed = 30
udp = 0.5

[[services.web.provider]]
name = "static"
path = "backends.toml"
[[services.web.provider]]
name = "consul"
service = "web"
token = "secret"

[services.web.health]
type     = "http"
path     = "/healthz"
host     = "web.example"
status   = "200-299,404"
port     = 8080
interval = "2s"
timeout  = "250ms"
rise     = 1
fall     = 5

[services.web.guard]
loss     = "80%"
hold     = "1m"
backends = 3
"""


def config(text: str) -> Config:
    return parse(text, Path("llb.toml"))


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        config(text)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_reads_every_key() -> None:
    got = config(ALL)
    balancer = got.loadbalancer
    assert balancer.name == "edge-1"
    assert balancer.public_interfaces == ("eth0", "eth2")
    assert balancer.private_interface == "eth1"
    assert [str(each) for each in balancer.backend_cidrs] == ["10.0.0.0/24", "10.1.0.0/16"]
    assert [str(each) for each in balancer.snat_addresses] == ["10.0.0.1", "10.0.0.9"]
    assert balancer.snat_ports == (2000, 2999)
    assert balancer.manage_addresses is False
    assert balancer.max_connections == 1234
    (web,) = got.services
    address = ipaddress.ip_address("203.0.113.10")
    assert web.service.keys == (ServiceKey(Endpoint(address, 80), Transport.TCP),)
    assert web.service.when_unhealthy is WhenUnhealthy.END
    assert web.service.when_all_unhealthy is WhenAllUnhealthy.NONE
    assert web.service.timeouts == Timeouts(1.5, 3600, 60, 30, 0.5)
    assert web.service.is_checked
    assert [(each.name, dict(each.options), each.place) for each in web.providers] == [
        ("static", {"path": "backends.toml"}, "services.web.provider[0]"),
        ("consul", {"service": "web", "token": "secret"}, "services.web.provider[1]"),
    ]
    health = web.health
    assert (health.type, health.path, health.host) == ("http", "/healthz", "web.example")
    assert health.status == ((200, 299), (404, 404))
    assert (health.port, health.interval, health.timeout) == (8080, 2.0, 0.25)
    assert (health.rise, health.fall) == (1, 5)
    assert web.guard == Guard(0.8, 60, 3)


def test_keys_may_be_left_out_where_a_default_serves() -> None:
    got = config(BALANCER + WEB)
    balancer = got.loadbalancer
    assert (balancer.name, balancer.snat_ports) == ("llb", (1024, 32767))
    assert (balancer.manage_addresses, balancer.max_connections) == (True, 1_000_000)
    (web,) = got.services
    assert web.service.timeouts == Timeouts(5, 7200, 10, 60, 60)
    assert web.service.when_unhealthy is WhenUnhealthy.KEEP
    assert web.service.when_all_unhealthy is WhenAllUnhealthy.ALL
    assert (web.health.type, web.health.interval, web.health.timeout) == ("tcp", 0.5, 0.5)
    assert (web.health.rise, web.health.fall, web.health.port) == (2, 3, None)
    assert web.providers[0].place == "services.web.provider"


def test_a_service_over_udp_is_not_checked_unless_told() -> None:
    (web,) = config(BALANCER + WEB.replace("80\n", '80\nprotocol = "udp"\n')).services
    assert web.health.type == "none"
    assert not web.service.is_checked


def test_one_interface_serves_both_sides_where_no_other_is_named() -> None:
    text = BALANCER.replace('private_interface = "eth1"', "")
    assert config(text).loadbalancer.private_interface == "eth0"
    text = text.replace('"eth0"', '["eth0", "eth2"]')
    assert errors(text) == [
        (
            "llb.toml: loadbalancer.private_interface: is missing: "
            "say which interface leads to backends"
        ),
    ]


def test_secrets_of_providers_stay_out_of_the_repr() -> None:
    assert "secret" not in repr(config(ALL))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"203.0.113.10"', '"10.0.0"', 'services.web.address: "10.0.0" is not an IP address'),
        ('"203.0.113.10"', "7", "services.web.address: 7 is not an IP address"),
        ('"203.0.113.10"', "[]", "services.web.address: is empty"),
        (
            '"203.0.113.10"',
            '"::1"',
            'services.web.address: "::1" is not the address of one host',
        ),
        (
            '"203.0.113.10"',
            '"fe80::1"',
            'services.web.address: "fe80::1" is known on its link alone: take one that is',
        ),
        (
            '"203.0.113.10"',
            '"2001:db8::1%eth0"',
            'services.web.address: "2001:db8::1%eth0" is known on its link alone',
        ),
        (
            '"203.0.113.10"',
            '"::ffff:192.0.2.1"',
            'services.web.address: "::ffff:192.0.2.1" is an IPv4 address: write "192.0.2.1"',
        ),
        (
            '"203.0.113.10"',
            '["203.0.113.10", "203.0.113.11"]',
            "services.web.address: more than one address of a family: make two services",
        ),
        (
            '"203.0.113.10"',
            '"224.0.0.1"',
            'services.web.address: "224.0.0.1" is not the address of one host on a network',
        ),
        ("= 80\n", "= 0\n", "services.web.port: 0 is less than 1"),
        ("= 80\n", "= 65536\n", "services.web.port: 65536 is more than 65535"),
        ("= 80\n", '= "80"\n', 'services.web.port: "80" is not a whole number'),
        ("port    = 80\n", "", "services.web.port: is missing"),
        (
            "port    = 80",
            "port = 80\nprot = 1",
            "services.web.prot: unknown key (did you mean port?)",
        ),
        (
            "port    = 80",
            'port = 80\nprotocol = "sctp"',
            "services.web.protocol: \"sctp\" is not 'tcp' or 'udp'",
        ),
        (
            "port    = 80",
            'port = 80\nscheduler = "random"',
            (
                "services.web.scheduler: \"random\" is not 'maglev', 'round_robin', "
                "'least_connections' or 'source'"
            ),
        ),
        (
            "port    = 80",
            "port = 80\nlimits = { connections = -1 }",
            "services.web.limits.connections: -1 is less than 0",
        ),
        (
            "port    = 80",
            "port = 80\nlimits = { new_per_second = 1_000_001 }",
            "services.web.limits.new_per_second: 1000001 is more than 1000000",
        ),
        (
            "port    = 80",
            "port = 80\nlimits = { per_source = 1 }",
            "services.web.limits.per_source: unknown key",
        ),
        (
            "port    = 80",
            "port = 80\naffinity_prefix = 24",
            'services.web: affinity_prefix: only with scheduler = "source"',
        ),
        (
            "port    = 80",
            'port = 80\nscheduler = "source"\naffinity_prefix = 33',
            "services.web.affinity_prefix: 33 is more than 32",
        ),
        (
            "port    = 80",
            'port = 80\nscheduler = "source"\naffinity_prefix_ipv6 = 0',
            "services.web.affinity_prefix_ipv6: 0 is less than 1",
        ),
        (
            "port    = 80",
            'port = 80\nslow_start = "2h"',
            'services.web.slow_start: "2h" is more than "1h": write "1h" or less',
        ),
        ('name = "static"', "", "services.web.provider.name: is missing"),
        ('name = "static"', "name = 3", "services.web.provider.name: 3 is not a string"),
        ("services.web]", 'services."my web"]', 'services.my web: "my web" is not a name'),
        ("services.web]", 'services."a\\nb"]', 'services."a\\nb": "a\\nb" is not a name'),
        ('"eth0"', '"e th0"', 'loadbalancer.public_interface: "e th0" is not the name of an'),
        ('"eth0"', '"an-interface-name"', 'loadbalancer.public_interface: "an-interface-name" is'),
        ('"eth0"', '["eth0", "eth0"]', "loadbalancer.public_interface[1]: eth0 is there twice"),
        ('"eth0"', "[]", "loadbalancer.public_interface: is empty"),
        (
            '"10.0.0.0/24"',
            '"10.0.0.1/24"',
            (
                'loadbalancer.backend_cidrs[0]: "10.0.0.1/24" has bits set beyond its prefix: '
                'write "10.0.0.0/24"'
            ),
        ),
        (
            '"10.0.0.0/24"',
            '"10.0.0.0/24", "fd00::1/8"',
            'loadbalancer.backend_cidrs[1]: "fd00::1/8" has bits set beyond its prefix: write "fd0',
        ),
        (
            '"10.0.0.0/24"',
            '"fe80::%eth0/64"',
            'loadbalancer.backend_cidrs[0]: "fe80::%eth0/64" is not a network, like "10.0.0.0/24"',
        ),
        ('["10.0.0.0/24"]', "[]", "loadbalancer.backend_cidrs: is empty"),
        ('["10.0.0.1"]', "[]", "loadbalancer.snat_addresses: is empty"),
        (
            '["10.0.0.1"]',
            '["10.0.0.1", "10.0.0.1"]',
            "loadbalancer.snat_addresses[1]: 10.0.0.1 is there twice",
        ),
        ("[services", 'nam = "a"\n[services', "loadbalancer.nam: unknown key (did you mean name?)"),
        (
            "[services",
            'snat_ports = "9-8"\n[services',
            'loadbalancer.snat_ports: "9-8" begins with its last port: write "8-9"',
        ),
        (
            "[services",
            'snat_ports = "0-8"\n[services',
            'loadbalancer.snat_ports: "0-8" is not a range of ports, like "1024-32767"',
        ),
        (
            "[services",
            '[api]\nlisten = "127.0.0.1:1023"\n[services',
            'api.listen: "127.0.0.1:1023" has a port below 1024, and the daemon gives up the',
        ),
        (
            "[services",
            '[api]\nlisten = "[::1]:70000"\n[services',
            'api.listen: "[::1]:70000" is not an address and a port, like "127.0.0.1:9310"',
        ),
        (
            "[services",
            'manage_addresses = "yes"\n[services',
            'loadbalancer.manage_addresses: "yes" is neither true nor false',
        ),
        (
            "[services",
            "max_connections = 0\n[services",
            "loadbalancer.max_connections: 0 is less than 1",
        ),
        ("[services", 'name = "a/b"\n[services', 'loadbalancer.name: "a/b" is not a name: letters'),
    ],
)
def test_an_error_names_file_key_value_and_remedy(old: str, new: str, message: str) -> None:
    text = BALANCER + WEB
    assert old in text
    assert errors(text.replace(old, new, 1))[0].startswith(f"llb.toml: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[services.web.timeouts]\nopening = "5 parsecs"',
            'timeouts.opening: "5 parsecs" is not a duration, like "500ms", "5s", "1m" or "2h"',
        ),
        ("[services.web.timeouts]\nudp = 0", "timeouts.udp: 0 is less than 0.001"),
        (
            '[services.web.timeouts]\nestablished = "8d"',
            'timeouts.established: "8d" is more than "7d": write "7d" or less',
        ),
        (
            "[services.web.timeouts]\nestablished = 604801",
            "timeouts.established: 604801 is more than 604800: write 604800 or less",
        ),
        (
            '[services.web.health]\ninterval = "1ms"',
            'health.interval: "1ms" is less than "10ms": write "10ms" or more',
        ),
        ("[services.web.timeouts]\nudp = true", "timeouts.udp: true is not a duration, like"),
        (
            f"[services.web.timeouts]\nudp = {'9' * 400}",
            f"timeouts.udp: {'9' * 59}… is not a duration, like",
        ),
        (
            f"[services.web.timeouts]\nudp = 0x{'f' * 5000}",
            "timeouts.udp: int of thousands of digits is not a duration, like",
        ),
        ("[services.web.timeouts]\nudp = nan", "timeouts.udp: NaN is not a duration, like"),
        ("[services.web.health]\ninterval = 0", "health.interval: 0 is less than 0.01"),
        ('[services.web.health]\ntype = "icmp"', "health.type: \"icmp\" is not 'tcp', 'http' or"),
        (
            '[services.web.health]\npath = "/"',
            'health: path: only with type = "http"',
        ),
        (
            '[services.web.health]\ntype = "http"\npath = "health z"',
            'health.path: "health z" is not a path of a URL, like "/healthz"',
        ),
        (
            '[services.web.health]\ntype = "http"\nhost = "a b\\r\\nX: y"',
            'health.host: "a b\\r\\nX: y" is not the name of a host',
        ),
        (
            '[services.web.health]\ntype = "http"\nstatus = "399-200"',
            'health.status: "399-200" is not a range of HTTP statuses, like "200-399"',
        ),
        ("[services.web.health]\nrise = 0", "health.rise: 0 is less than 1"),
        ("[services.web.health]\nfall = 1.5", "health.fall: 1.5 is not a whole number"),
        ('[services.web.guard]\nloss = "150%"', 'guard.loss: "150%" is not a share, like "50%"'),
    ],
)
def test_an_error_in_a_table_of_a_service(text: str, message: str) -> None:
    assert errors(BALANCER + WEB + text)[0].startswith(f"llb.toml: services.web.{message}")


DUAL = (BALANCER + WEB).replace('"203.0.113.10"', '["2001:DB8::10", "203.0.113.10"]')


def test_a_service_may_have_an_address_of_each_family() -> None:
    text = DUAL.replace('0/24"]', '0/24", "2001:0db8:1::/64"]').replace(
        '1"]', '1", "2001:db8:1::1"]'
    )
    got = config(text)
    assert [str(key) for key in got.services[0].service.keys] == [
        "203.0.113.10:80/tcp",
        "[2001:db8::10]:80/tcp",
    ]
    assert got.families == {4, 6}
    assert [str(each) for each in got.loadbalancer.cidrs_of(6)] == ["2001:db8:1::/64"]
    assert [str(each) for each in got.loadbalancer.snat_of(6)] == ["2001:db8:1::1"]
    assert config(text.replace('"2001:DB8::10", ', "")).families == {4}


def test_a_family_without_networks_or_snat_addresses_is_named() -> None:
    assert errors(DUAL) == [
        (
            "llb.toml: loadbalancer.backend_cidrs: has no IPv6 network, and services.web is served "
            "on 2001:db8::10: add one that IPv6 backends are in"
        ),
        (
            "llb.toml: loadbalancer.snat_addresses: has no IPv6 address, and services.web is "
            "served on 2001:db8::10: add one that IPv6 backends get their packets from"
        ),
    ]


def test_two_addresses_of_one_family_are_two_services() -> None:
    text = (BALANCER + WEB).replace('"203.0.113.10"', '["203.0.113.10", "203.0.113.11"]')
    assert errors(text) == [
        "llb.toml: services.web.address: more than one address of a family: make two services"
    ]


def test_two_services_on_one_address_are_refused() -> None:
    assert errors(BALANCER + WEB + WEB.replace("services.web", "services.shop")) == [
        (
            "llb.toml: services.shop.address: "
            "203.0.113.10:80/tcp is the address of services.web already"
        ),
    ]


def test_the_same_port_over_another_protocol_is_another_service() -> None:
    other = WEB.replace("services.web", "services.dns").replace("80\n", '80\nprotocol = "udp"\n')
    assert len(config(BALANCER + WEB + other).services) == 2


def test_a_vip_among_the_snat_ports_of_a_snat_address_is_refused() -> None:
    text = BALANCER + WEB.replace("203.0.113.10", "10.0.0.1")
    assert len(config(text).services) == 1, "port 80 is not among them"
    assert errors(text.replace("= 80", "= 8080")) == [
        (
            "llb.toml: services.web.address: 10.0.0.1:8080/tcp is a SNAT address with a port among "
            "loadbalancer.snat_ports: take another address"
        ),
    ]


def test_more_services_than_the_classifier_takes_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = BALANCER + WEB + WEB.replace("services.web", "services.shop").replace("= 80", "= 81")
    monkeypatch.setattr("llb_core.config.SERVICE_SLOTS", 2)
    assert len(config(text).services) == 2
    monkeypatch.setattr("llb_core.config.SERVICE_SLOTS", 1)
    assert errors(text) == [
        (
            "llb.toml: services: 2 with an IPv4 address, the classifier takes 1: "
            "serve some by another balancer"
        ),
    ]


def test_every_problem_gets_a_line() -> None:
    text = (BALANCER + WEB).replace("= 80", "= 0").replace('"eth0"', "7").replace("path", "pat")
    assert len(errors(text)) == 2


def test_a_table_missing_or_of_the_wrong_kind() -> None:
    assert errors("") == ["llb.toml: loadbalancer: is missing"]
    assert errors("loadbalancer = 3") == ["llb.toml: loadbalancer: 3 is not a table"]
    assert errors(BALANCER + "[services]\nweb = 3") == ["llb.toml: services.web: 3 is not a table"]


def test_no_services_are_fine() -> None:
    assert config(BALANCER).services == ()


def test_text_that_is_no_toml_names_the_line() -> None:
    assert errors(BALANCER + "[services\n")[0].startswith("llb.toml: is not valid TOML: ")
    assert "(at line 7, column 10)" in errors(BALANCER + "[services\n")[0]


def test_text_that_is_nested_without_end_is_no_toml() -> None:
    assert errors(f"a = 1\nb = {'9' * 5000}") == [
        "llb.toml: is not valid TOML: a number of thousands of digits (at line 2)"
    ]
    assert errors("a = " + "[" * 5000) == ["llb.toml: is not valid TOML: it is nested too deeply"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "llb.toml"
    with pytest.raises(ConfigurationError, match=r"llb.toml: there is no such file: name one with"):
        load(path)
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigurationError, match=r"llb.toml: is not UTF-8 \(at byte 8\)"):
        load(path)
    with pytest.raises(ConfigurationError, match="can't be read: Is a directory"):
        load(tmp_path)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llb.toml").write_text(BALANCER + WEB)
    monkeypatch.chdir(tmp_path)
    got = load(Path("llb.toml"))
    assert got.base == tmp_path
    assert got.path == Path("llb.toml")
