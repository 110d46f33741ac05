"""`llb status`: what it shows."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from rich.console import Console

from llb_core.cli import status_watch
from llb_core.errors import DaemonUnreachable, LLBError
from llb_core.run_folder import RunFolder
from tests.api.observed import observed, status_view
from tests.cli.conftest import Llb


def answer(services: int = 2, backends: int = 12) -> dict[str, Any]:
    view = status_view(observed(services, backends)) | {
        "source": "daemon",
        "pid": 7,
        "config": "/etc/llb/llb.toml",
        "connections": 3,
        "max_connections": 1000,
    }
    for each in view["services"]:
        each["sources"] = each["sources"][:1]
    return view


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Any], Path]]:
    """Something that answers on a control socket: the path of a configuration that leads to it."""
    servers = []
    monkeypatch.setattr(RunFolder, "socket", property(lambda self: tmp_path / f"{self.name}.sock"))

    def start(said: Any) -> Path:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

            def address_string(self) -> str:
                return "unix"

        server = ThreadingUnixStreamServer(str(tmp_path / "llb.sock"), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = tmp_path / "llb.toml"
        path.write_text("[loadbalancer]\nthis = 'file is wrong'\n")
        return path

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_shows_what_runs_although_the_file_is_wrong_now(
    llb: Llb, daemon: Callable[[Any], Path]
) -> None:
    done = llb("status", "-c", daemon(answer()))
    assert (done.code, done.err) == (0, "")
    assert "llb: daemon 1.0, pid 7" in done.out


def test_says_why_backends_are_unhealthy(llb: Llb, daemon: Callable[[Any], Path]) -> None:
    done = llb("status", "-c", daemon(answer(services=1, backends=80)))
    _, _, unhealthy = done.out.partition("Unhealthy:\n")
    lines = [line.split() for line in unhealthy.splitlines()[1:7]]
    assert lines[0] == ["service-1", "10.0.0.11:8080", "connection", "refused"]
    assert lines[5][:4] == ["service-1", "and", "3", "more"]


def test_says_in_its_first_lines_that_the_page_is_not_there(
    llb: Llb, daemon: Callable[[Any], Path]
) -> None:
    why = "api.listen: 127.0.0.1:9310 can't be listened on: Address already in use"
    done = llb("status", "-c", daemon(answer() | {"listen_error": why}))
    assert done.out.splitlines()[1] == f"no status page, no metrics: {why}"


def test_says_where_providers_differ_about_weights(llb: Llb, daemon: Callable[[Any], Path]) -> None:
    said = answer(services=1)
    said["services"][0] |= {"differing": 2, "provider_weights": {"10.0.0.2:8080": [3, 5]}}
    _, _, weights = llb("status", "-c", daemon(said)).out.partition("about weights")
    lines = [line.split() for line in weights.splitlines()[2:4]]
    assert lines[0] == ["service-1", "10.0.0.2:8080", "3", "and", "5"]
    assert lines[1][:4] == ["service-1", "and", "1", "more"]


def test_many_services_are_a_line_each(llb: Llb, daemon: Callable[[Any], Path]) -> None:
    done = llb("status", "-c", daemon(answer(services=300, backends=1)))
    rows = [line for line in done.out.splitlines() if line.startswith("service-")]
    assert sum(len(row.split()) >= 10 for row in rows) >= 300


def test_json_for_a_program_is_one_line(llb: Llb, daemon: Callable[[Any], Path]) -> None:
    said = answer()
    done = llb("status", "--json", "-c", daemon(said))
    assert done.out.count("\n") == 1
    assert json.loads(done.out) == json.loads(json.dumps(said))


def test_watching_is_for_people(llb: Llb, tmp_path: Path) -> None:
    done = llb("status", "--watch", "--json", "-c", tmp_path / "llb.toml")
    assert (done.code, done.out) == (2, "")
    assert "--watch is for people" in done.err


def test_rates_are_those_since_the_look_before() -> None:
    before, after = answer(), answer()
    for view in after["services"]:
        view["opened"] += 20
        view["bytes_in"] += 100
        view["bytes_out"] += 300
        view["drops"] = 0  # begun anew
    after["services"][1]["name"] = "new"
    status_watch.put_rates(after, before, 2.0)
    assert after["services"][0]["rates"] == {
        "opened": 10.0, "packets": 0.0, "bytes": 200.0, "drops": 0.0
    }  # fmt: skip
    assert after["services"][1]["rates"] is None


def picture(seen: dict[str, Any] | LLBError, height: int = 30) -> str:
    console = Console(width=200, height=height, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(status_watch.picture(seen, console.width, height))
    return console.export_text()


def test_the_busiest_services_come_first_and_fit_the_screen() -> None:
    seen = answer(services=100)
    for number, view in enumerate(seen["services"]):
        view["rates"] = {"opened": number, "packets": 0, "bytes": number, "drops": 0}
    text = picture(seen)
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("service-")]
    assert rows[:2] == ["service-100", "service-99"]
    assert "and 85 quieter services" in text
    assert len(text.splitlines()) <= 30


def test_goes_on_when_the_daemon_is_gone() -> None:
    assert "no daemon answers" in picture(DaemonUnreachable("no daemon answers"))


def test_looks_again_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter([answer(), LLBError("gone"), answer()])

    def ask(*_: object) -> dict[str, Any]:
        said = next(answers)
        if isinstance(said, LLBError):
            raise said
        return said

    monkeypatch.setattr(status_watch, "ask", ask)
    monkeypatch.setattr(status_watch, "PAUSE", 0.0)
    first, gone, last = itertools.islice(status_watch.looks(tmp_path), 3)
    assert first["services"][0]["rates"] is None
    assert isinstance(gone, LLBError)
    assert last["services"][0]["rates"]["opened"] == 0.0


def test_asking_imports_neither_the_configuration_nor_its_libraries() -> None:
    program = """if True:
        import sys
        from llb_core.cli.app import application
        application()
        slow = {"pydantic", "numpy", "aiohttp", "prometheus_client", "rich.table", "pyroute2"}
        print(sorted(slow & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
