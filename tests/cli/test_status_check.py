"""`llb status --check` against a control socket that answers, one that hangs, and none."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llb_core.api.client import Client
from llb_core.cli import offline, status_check
from llb_core.run_folder import RunFolder
from tests.cli.conftest import Llb

CONFIG = """\
[loadbalancer]
name = "no-such-balancer"
public_interface = "eth0"
backend_cidrs = ["10.0.0.0/24"]
snat_addresses = ["10.0.0.1"]

[services.web]
address = "203.0.113.10"
port = 80
provider = { name = "static", path = "a.toml" }

[services.dns]
address = "203.0.113.10"
port = 53
protocol = "udp"
provider = { name = "static", path = "a.toml" }
"""

Answer = Callable[..., None]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llb.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def unserved(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Have a daemon say which addresses of which services nobody serves."""

    def answer(**services: list[str]) -> None:
        views = [
            {"name": name, "unserved": addresses, "backends": 3, "unhealthy": 2}
            for name, addresses in services.items()
        ]
        monkeypatch.setattr(Client, "get", lambda *_: {"services": views})

    return answer


def test_all_is_well(llb: Llb, config: Path, unserved: Answer) -> None:
    unserved(web=[], dns=[])
    done = llb("status", "--check", "-c", config)
    assert (done.code, done.out, done.err) == (0, "all 2 services have a healthy backend\n", "")
    assert json.loads(llb("status", "--check", "--json", "-c", config).out) == {
        "source": "daemon",
        "is_well": True,
        "faults": {},
    }


def test_a_full_disk_under_the_output_takes_no_vip_away(
    llb: Llb, config: Path, unserved: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    told: list[OSError] = []
    monkeypatch.setattr(status_check.typer, "echo", fail)
    monkeypatch.setattr(status_check.show, "give_up_output", told.append)
    unserved(web=[])
    assert llb("status", "--check", "-c", config).code == 0
    assert len(told) == 1


def test_a_service_without_a_healthy_backend_is_named(
    llb: Llb, config: Path, unserved: Answer
) -> None:
    unserved(web=["203.0.113.10:80/tcp"], dns=[])
    done = llb("status", "--check", "-c", config)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "llb: web: no healthy backend takes connections for 203.0.113.10:80/tcp "
        "(3 registered, 2 unhealthy)\n"
    )
    shown = llb("status", "--check", "--json", "-c", config)
    assert (shown.code, json.loads(shown.out)["is_well"]) == (1, False)


def test_one_that_is_not_asked_for_does_not_count(llb: Llb, config: Path, unserved: Answer) -> None:
    unserved(web=["203.0.113.10:80/tcp"], dns=[])
    assert llb("status", "--check", "-s", "dns", "-c", config).out == (
        "dns has a healthy backend\n"
    )
    assert llb("status", "--check", "-s", "dns", "-s", "web", "-c", config).code == 1


def test_a_service_that_the_daemon_does_not_serve_yet_counts_where_it_is_asked_for(
    llb: Llb, config: Path, unserved: Answer
) -> None:
    unserved(web=[])
    assert llb("status", "--check", "-c", config).out == "web has a healthy backend\n"
    done = llb("status", "--check", "-s", "dns", "-c", config)
    assert done.code == 1
    assert done.err.startswith("llb: dns: is not served")


HALF_EDITED = {
    "key": ("port = 80", "prt = 80"),
    "syntax": ("port = 80", "port ="),
    "address": ('"203.0.113.10"', '"203.0.113."'),
}


@pytest.mark.parametrize("edit", HALF_EDITED.values(), ids=HALF_EDITED)
def test_a_half_edited_file_says_nothing_of_the_daemon(
    llb: Llb, config: Path, unserved: Answer, edit: tuple[str, str]
) -> None:
    config.write_text(CONFIG.replace(*edit, 1))
    assert llb("check", "-c", config).code == 2
    unserved(web=[], dns=[])
    done = llb("status", "--check", "-c", config)
    assert (done.code, done.out, done.err) == (0, "all 2 services have a healthy backend\n", "")
    unserved(web=["203.0.113.10:80/tcp"], dns=[])
    assert llb("status", "--check", "-c", config).code == 1
    assert llb("status", "--check", "-s", "dns", "-c", config).code == 0
    assert llb("status", "--check", "-s", "wbe", "-c", config).code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--check", "-s", "wbe"), 'there is no service "wbe"'),
        (("-s", "web"), "--service and --maps-suffice go with --check alone"),
        (("--maps-suffice",), "--service and --maps-suffice go with --check alone"),
        (("--check", "--nonsense"), "no such option: --nonsense: see llb status --help"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_ends_with_2(
    llb: Llb, config: Path, unserved: Answer, arguments: tuple[str, ...], message: str
) -> None:
    unserved(web=[], dns=[])
    done = llb("status", *arguments, "-c", config)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize("arguments", [(), ("--maps-suffice",)], ids=["", "nor maps"])
def test_without_a_daemon_it_is_not_well(
    llb: Llb, config: Path, arguments: tuple[str, ...]
) -> None:
    done = llb("status", "--check", *arguments, "-c", config)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 2, "a line for each service"


def test_by_the_maps_nobody_is_called_healthy(
    llb: Llb, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, dns = ({"name": each, "unserved": [], "backends": 3} for each in ("web", "dns"))
    monkeypatch.setattr(offline, "status", lambda _: {"services": [web, dns]})
    done = llb("status", "--check", "--maps-suffice", "-c", config)
    assert done.code == 0
    assert done.out == (
        "all 2 services have a backend in the maps; no daemon answers, so nobody knows which are "
        "healthy\n"
    )

    web["unserved"] = ["203.0.113.10:80/tcp"]
    done = llb("status", "--check", "--maps-suffice", "-c", config)
    assert done.code == 1
    assert done.err == (
        "llb: web: no backend in the maps takes connections for 203.0.113.10:80/tcp (3 installed)\n"
    )


@pytest.fixture
def deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A daemon that takes connections and never answers."""
    path = tmp_path / "deaf.sock"
    monkeypatch.setattr(RunFolder, "socket", property(lambda _: path))
    monkeypatch.setattr(status_check, "TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def test_a_daemon_that_hangs_is_not_well(llb: Llb, config: Path, deaf: None) -> None:
    done = llb("status", "--check", "-c", config)
    assert done.code == 1
    assert "did not answer within 0.05 s" in done.err
