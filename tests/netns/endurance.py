"""Requests and a long transfer, of both families, while the daemon is upgraded, reloaded, killed
and restarted over and over. `make endurance` runs it; `make test` has `test_outlives` and
`test_upgrade`, which do each of it once."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Process, wait_until
from llb_core.demo.traffic import Traffic
from tests.netns.conftest import Balance
from tests.netns.test_outlives import reload_with

pytestmark = pytest.mark.netns

REQUESTS = int(os.environ.get("LLB_ENDURANCE_REQUESTS", "3000"))
"""At least so many, of both families together."""
TROUBLES = int(os.environ.get("LLB_ENDURANCE_TROUBLES", "4"))
TRANSFER = int(os.environ.get("LLB_ENDURANCE_MIB", "64")) << 20
"""Bytes, of each family and each way."""
RATE = 400.0
"""Requests a second of each family."""
FAMILIES = (4, 6)
STREAM_PORT = 7000
STREAM = Path(__file__).with_name("transfer.py")


class Versions:
    """The version of LLB that is started: `python -m tests.versions` knows two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._is_other = False
        monkeypatch.setattr(lab, "llb_command", self.command)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.versions", "other" if self._is_other else "now"]

    def upgrade(self, balancer: lab.Balancer) -> None:
        """To the other one, whose maps have another layout."""
        carried = balancer.log.read_text().count("connections over from maps of layout")
        assert balancer.stop() == 0
        self._is_other = not self._is_other
        balancer.start()
        said = balancer.log.read_text().count("connections over from maps of layout")
        assert said == carried + 1, "the layout is another one"

    def reload(self, balancer: lab.Balancer) -> None:
        """With a change of each service, and back."""
        limit = f"{next(_numbers)}m"
        service = f'timeouts = {{ established = "{limit}" }}'
        reload_with(balancer, families=FAMILIES, service=service, extra=stream_service())

    def kill(self, balancer: lab.Balancer) -> None:
        balancer.kill()
        balancer.start()

    def restart(self, balancer: lab.Balancer) -> None:
        assert balancer.stop() == 0
        balancer.start()


_numbers = itertools.count(60)


def test_nothing_fails_over_restarts_reloads_and_upgrades(
    balance: Balance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [lab.ADDRESSES[family].backend(11) for family in FAMILIES]
    lab.replace(
        tmp_path / "stream.toml",
        "".join(f'[[backends]]\naddress = "{each}"\nport = {STREAM_PORT}\n' for each in addresses),
    )
    versions = Versions(monkeypatch)
    balancer = balance(clients=2, families=FAMILIES, extra=stream_service())
    hosts = balancer.lab
    echo = hosts.backends[0].host.start(*script("serve", STREAM_PORT))
    assert echo.stdout is not None
    assert echo.stdout.readline() == "ready\n"
    upgrade, reload = versions.upgrade, versions.reload
    troubles = (upgrade, reload, versions.kill, versions.restart, upgrade)
    with ExitStack() as stack:
        transfers = [stack.enter_context(Transfer(hosts.of(family))) for family in FAMILIES]
        traffics = [stack.enter_context(requests(hosts.of(family))) for family in FAMILIES]
        for done, trouble in enumerate(itertools.islice(itertools.cycle(troubles), TROUBLES)):
            for traffic in traffics:
                traffic.phase(f"{done + 1}: {trouble.__name__}")
            trouble(balancer)
            wanted = REQUESTS * (done + 1) // (TROUBLES + 1) // len(FAMILIES)
            for traffic in traffics:
                wait_until(lambda: sent(traffic) >= wanted, lab.LIMIT, "requests go on")  # noqa: B023
            for transfer in transfers:
                transfer.goes_on()
        for traffic in traffics:
            wait_until(lambda: sent(traffic) >= REQUESTS // 2, lab.LIMIT, "requests go on")  # noqa: B023
        for traffic in traffics:
            tallies = traffic.finish(lab.LIMIT)
            assert not {phase: each.failed for phase, each in tallies.items() if each.failed}
            names = {name for each in tallies.values() for name in each.answered}
            assert names == {"b1", "b2", "b3"}
            assert sum(each.sent for each in tallies.values()) >= REQUESTS // len(FAMILIES)
        for transfer in transfers:
            transfer.finish()


def stream_service() -> str:
    vips = json.dumps([lab.ADDRESSES[family].vip for family in FAMILIES])
    return f"""
[services.stream]
address = {vips}
port    = {STREAM_PORT}

[services.stream.provider]
name = "static"
path = "stream.toml"

[services.stream.health]
type = "tcp"
"""


def script(*arguments: object) -> list[str]:
    return [sys.executable, "-I", "-S", str(STREAM), *map(str, arguments)]


@contextmanager
def requests(hosts: lab.Lab) -> Iterator[Traffic]:
    """A steady load; what takes longer than 10 s has failed."""
    with Traffic(hosts.clients, hosts.vip, lab.PORT, rate=RATE) as traffic:
        traffic.phase("beginning")
        yield traffic


def sent(traffic: Traffic) -> int:
    return sum(each.sent for each in traffic.tallies().values())


class Transfer:
    """Bytes there and back over one connection, as many a second as make them last."""

    def __init__(self, hosts: lab.Lab) -> None:
        lasts = max(REQUESTS / len(FAMILIES) / RATE, 2.0 * TROUBLES)
        self._process = self._start(hosts, TRANSFER / lasts)
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @staticmethod
    def _start(hosts: lab.Lab, rate: float) -> Process:
        command = script("send", hosts.vip, STREAM_PORT, TRANSFER, rate)
        return hosts.client.start(*command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines += ["0"]
        for line in self._process.stdout:
            self._lines.append(line)

    def goes_on(self) -> None:
        """Wait until more has come back."""
        then = len(self._lines)
        wait_until(lambda: len(self._lines) > then, lab.LIMIT, "the transfer goes on")
        assert not self._is_over, self._lines[-1]

    @property
    def _is_over(self) -> bool:
        return self._lines[-1].startswith("{")

    def finish(self) -> None:
        """Have the rest sent, and see that all came back as it was sent."""
        assert self._process.stdin is not None
        assert not self._is_over, self._lines[-1]
        self._process.stdin.write("hurry\n")
        self._process.stdin.flush()
        self._process.wait()  # It fails by itself where no byte comes any more.
        self._reader.join()
        outcome = json.loads(self._lines[-1])
        assert "failed" not in outcome, outcome
        assert outcome["bytes"] == TRANSFER
        assert outcome["received"] == outcome["sent"]
