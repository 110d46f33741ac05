"""From the file to the maps: never answered, failing now, and empty are three things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from llb_provider_static import StaticProvider

from llb_core import Endpoint
from llb_core.model import BackendMode
from llb_core.testing import MemoryBalancer, MemoryMaps, some_backends, until

V4 = frozenset({4})
OPTIONS = {"path": "backends.toml"}


def text(*numbers: int, more: str = "") -> str:
    entries = (f'{{address = "10.0.0.{number}", port = 8080{more}}}' for number in numbers)
    return f"backends = [{', '.join(entries)}]\n"


Maps = Mapping[int, MemoryMaps]


def endpoints(*numbers: int) -> frozenset[Endpoint]:
    return frozenset(each.endpoint for each in some_backends(*numbers))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "backends.toml"
    path.write_text(text(1, 2))
    return path


@pytest.fixture
def served(file: Path) -> Maps:
    """The maps that a daemon left behind which had both backends."""
    with MemoryBalancer(base=file.parent) as balancer:
        balancer.add(StaticProvider, OPTIONS)
        balancer.turn_until(lambda: balancer.active() == endpoints(1, 2))
    return balancer.maps


def gone(file: Path) -> None:
    file.unlink()


def broken(file: Path) -> None:
    file.write_text("backends = [")


def without_backends(file: Path) -> None:
    file.write_text("[backend]\n")


def one_entry_wrong(file: Path) -> None:
    file.write_text(text(1, 2, 3).replace("10.0.0.2", "web.example"))


def negative(file: Path) -> None:
    file.write_text(text(1, more=", weight = -1"))


FAULTS = [gone, broken, without_backends, one_entry_wrong, negative]
Spoil = Callable[[Path], None]


@pytest.mark.parametrize("spoil", FAULTS)
def test_never_answered_leaves_what_an_earlier_daemon_installed(
    file: Path, served: Maps, spoil: Spoil
) -> None:
    spoil(file)
    with MemoryBalancer(served, base=file.parent) as balancer:
        source = balancer.add(StaticProvider, OPTIONS)
        until(lambda: source.error)
        report = balancer.turn()
        assert not source.is_ready
        assert not report.plan
        assert balancer.active() == endpoints(1, 2)
        assert (
            "as installed before, since a provider gave no good answer yet" in report.sentences[0]
        )
        file.write_text(text(3))
        balancer.turn_until(lambda: balancer.active() == endpoints(3))


@pytest.mark.parametrize("spoil", FAULTS)
def test_failing_now_leaves_the_last_good_answer(file: Path, spoil: Spoil) -> None:
    with MemoryBalancer(base=file.parent) as balancer:
        source = balancer.add(StaticProvider, OPTIONS)
        balancer.turn_until(lambda: balancer.active() == endpoints(1, 2))
        spoil(file)
        until(lambda: source.is_stale)
        assert not balancer.turn().plan
        assert balancer.active() == endpoints(1, 2)
        assert source.error.startswith("backends.toml: ")
        file.write_text(text(2, 3))
        balancer.turn_until(lambda: balancer.active() == endpoints(2, 3))
        assert not source.error


def listed(*entries: str) -> str:
    return f'{{"backends": [{", ".join(entries)}]}}'


def entry(address: str = "10.0.0.7", port: object = 80, weight: object = 1) -> str:
    return f'{{"address": "{address}", "port": {port}, "weight": {weight}}}'


BAD = {
    "a surrogate": (
        entry(r"\ud800"),
        'backends[1].address: "\N{REPLACEMENT CHARACTER}" is not an IP',
    ),
    "a name": (
        entry("web.example"),
        'backends[1].address: "web.example" is not an IP address: wri',
    ),
    "NaN": (entry(weight="NaN"), "backends[1].weight: NaN is not a number of JSON: write a whole"),
    "a long number": (entry(weight="9" * 5000), "backends[1].weight: a number of 5000 digits: wr"),
    "negative": (entry(weight=-1), "backends[1].weight: -1 is less than 0"),
    "no port": (entry(port="null"), "backends[1].port: null is not a whole number"),
    "twice": (entry("10.0.0.1", 8080), "backends[1]: 10.0.0.1:8080 is backends[0] already: remove"),
    "IPv6": (
        entry("2001:db8::7"),
        "backends[1]: [2001:db8::7]:80 is IPv6, and the service is IPv4: leave it out, or give",
    ),
    "multicast": (entry("224.0.0.7"), "backends[1]: 224.0.0.7 is not the address of one host"),
    "broadcast": (
        entry("10.0.0.255"),
        "backends[1]: 10.0.0.255 is not the address of one host on a network but an end of 10.0.0",
    ),
    "ours": (entry("10.0.0.254"), "backends[1]: 10.0.0.254:80 is the balancer's own (loadbalanc"),
    "elsewhere": (entry("10.9.0.7"), "backends[1]: 10.9.0.7:80 is in no network of loadbalancer."),
    "too many": (
        ", ".join(entry(f"10.0.0.{2 + port % 200}", port) for port in range(1, 10_001)),
        "b.json: backends[10000]: more than 10000 backends for one service: have fewer named",
    ),
    "too large": (
        " " * (16 << 20) + entry(),
        "b.json: is larger than 16 MiB, many times what a service's backends take: name another",
    ),
}


@pytest.mark.parametrize(("bad", "fault"), BAD.values(), ids=BAD)
def test_bad_input_names_the_entry_and_the_last_good_answer_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str, fault: str
) -> None:
    file = tmp_path / "b.json"
    good = entry("10.0.0.1", 8080)
    file.write_text(listed(good))
    cidrs = [ip_network("10.0.0.0/24")]
    with MemoryBalancer(base=tmp_path, families=V4, backend_cidrs=cidrs) as balancer:
        source = balancer.add(StaticProvider, {"path": "b.json"})
        source.ours = {ip_address("10.0.0.254"): "loadbalancer.snat_addresses"}
        balancer.turn_until(lambda: balancer.active() == endpoints(1))
        file.write_text(listed(good, bad))
        until(lambda: source.error and caplog.messages, limit=30)
        assert not balancer.turn().plan
        (message,) = caplog.messages
        assert message.startswith("web: provider static: ")
        assert "b.json" in message
        assert fault in message
        assert "; its last answer stays (1 backend, " in message
        file.write_text(listed(entry("10.0.0.2", 8080)))
        balancer.turn_until(lambda: balancer.active() == endpoints(2), limit=30)


def test_empty_is_none_at_once(file: Path) -> None:
    with MemoryBalancer(base=file.parent) as balancer:
        source = balancer.add(StaticProvider, OPTIONS)
        balancer.turn_until(lambda: balancer.active() == endpoints(1, 2))
        file.write_text("backends = []\n")
        balancer.turn_until(lambda: not balancer.active())
        assert set(balancer.modes().values()) == {BackendMode.RETIRED}
        assert (source.is_ready, source.error) == (True, "")


def test_empty_from_the_first_is_none_too(file: Path, served: Maps) -> None:
    file.write_text("backends = []\n")
    with MemoryBalancer(served, base=file.parent) as balancer:
        balancer.add(StaticProvider, OPTIONS)
        balancer.turn_until(lambda: not balancer.active())


def test_draining_and_weight_0_keep_connections_and_take_no_new_ones(file: Path) -> None:
    with MemoryBalancer(base=file.parent) as balancer:
        balancer.add(StaticProvider, OPTIONS)
        balancer.turn_until(lambda: balancer.active() == endpoints(1, 2))
        for more in (", draining = true", ", weight = 0"):
            file.write_text(text(1, more=more).rstrip("]\n") + ", " + text(2).partition("[")[2])
            balancer.turn_until(lambda: balancer.active() == endpoints(2))
            assert BackendMode.DRAINING in balancer.modes().values()
            file.write_text(text(1, 2))
            balancer.turn_until(lambda: balancer.active() == endpoints(1, 2))


def test_two_files_of_one_service_are_merged(file: Path) -> None:
    """The same backend twice is one, so one provider can take over from another without a gap."""
    (file.parent / "other.json").write_text('[{"targets": ["10.0.0.2:8080", "10.0.0.3:8080"]}]')
    with MemoryBalancer(base=file.parent) as balancer:
        balancer.add(StaticProvider, OPTIONS)
        balancer.turn_until(lambda: balancer.active() == endpoints(1, 2))
        new = balancer.add(StaticProvider, {"path": "other.json"})
        balancer.turn_until(lambda: balancer.active() == endpoints(1, 2, 3))
        assert len(balancer.modes()) == 3
        kept = {each.slot: each for each in balancer.maps[4].installed().backends.values()}
        (file.parent / "other.json").write_text(
            '[{"targets": ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]}]'
        )
        until(lambda: len(new.gather_backends()) == 3)
        assert not balancer.turn().plan
    with MemoryBalancer(balancer.maps, base=file.parent) as later:
        later.add(StaticProvider, {"path": "other.json"})
        until(lambda: later.sources[0].is_ready)
        assert not later.turn().plan, "the first provider goes, and nothing changes"
        assert dict(later.maps[4].installed().backends) == kept
