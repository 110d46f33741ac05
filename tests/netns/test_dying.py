"""Backends that die while transfers run: of both families, on real sockets."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network, Process, stop, wait_until
from tests.netns import stream
from tests.netns.conftest import balancing
from tests.netns.stream import Stream

pytestmark = pytest.mark.netns

BOTH = (4, 6)
PATIENCE = 60
MUCH = 200_000
"""Bytes that show that a stream goes on."""
ENDED, KEPT = 5201, 5202
"""The ports of two services with the same backends: by what becomes of an unhealthy one's."""
SERVICES = """
[services.{name}]
address = {vips}
port = {port}
when_unhealthy = "{name}"
provider = {{ name = "static", path = "{name}.toml" }}
health = {{ type = "tcp", timeout = "2s" }}
"""


class Transfer:
    """A client's connection with a stream from the backend, and one to it where it speaks."""

    def __init__(self, hosts: lab.Lab, port: int, *, speaks: bool) -> None:
        self.family = hosts.family
        self.port = port
        self.speaks = speaks
        self.error: Exception | None = None
        self._socket = hosts.client.socket(family=hosts.family)
        self._socket.connect((hosts.vip, port))
        self._socket.settimeout(None)
        self._file = self._socket.makefile("rb")
        self.backend = self._file.readline().decode().strip()
        self._stream = Stream(self.backend)

    def __repr__(self) -> str:
        return f"IPv{self.family} to {self.backend}, port {self.port}: {self.received} bytes"

    @property
    def received(self) -> int:
        """How many bytes of the backend's stream have come."""
        return self._stream.place

    def begin(self) -> None:
        """Read, and write, until it ends."""
        for target in (self._read, self._write) if self.speaks else (self._read,):
            threading.Thread(target=target, daemon=True).start()

    def end(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self) -> None:
        try:
            while data := self._file.read1(stream.BLOCK):  # type: ignore[attr-defined]
                assert data == self._stream.next(len(data)), "other bytes than were sent"
            raise EOFError
        except (OSError, EOFError, AssertionError) as error:
            self.error = error

    def _write(self) -> None:
        sent = Stream("client")
        with contextlib.suppress(OSError):
            while self.error is None:
                self._socket.sendall(sent.next(stream.BLOCK))
                threading.Event().wait(stream.PAUSE)


def test_transfers_end_or_go_on_when_their_backends_die(network: Network, tmp_path: Path) -> None:
    vips = json.dumps([each.vip for each in lab.ADDRESSES.values()])
    services = ""
    for name, port in (("end", ENDED), ("keep", KEPT)):
        services += SERVICES.format(name=name, port=port, vips=vips)
        lines = [
            f'[[backends]]\naddress = "{lab.ADDRESSES[f].backend(n)}"\nport = {port}\n'
            for f in BOTH
            for n in (11, 12, 13, 14)
        ]
        (tmp_path / f"{name}.toml").write_text("".join(lines))
    with balancing(network, tmp_path, backends=4, families=BOTH, extra=services) as balancer:
        hosts = balancer.lab
        servers = {each.name: serve(each) for each in hosts.backends}
        wait_until(lambda: healthy(balancer) == {*servers}, PATIENCE, "all are healthy")
        with transfers(hosts) as every:

            def to(backend: str, *ports: int) -> list[Transfer]:
                return [each for each in every if each.backend == backend and each.port in ports]

            go_on(every)

            stop(servers["b1"], signal.SIGKILL)
            dead = to("b1", ENDED, KEPT)
            wait_until(lambda: all(each.error for each in dead), PATIENCE, "b1's have ended")
            assert {type(each.error) for each in dead} <= {ConnectionResetError, EOFError}
            alive = [each for each in every if each not in dead]
            go_on(alive)

            switch = network.get("private")
            switch.ip("link set port2 down")
            alive = [each for each in alive if each.backend != "b2"]
            ended_by_reset(to("b2", ENDED))
            go_on(alive)
            assert {each.error for each in to("b2", KEPT)} == {None}
            switch.ip("link set port2 up")
            alive += to("b2", KEPT)
            go_on(alive)

            hosts.backends[2].host.ip("link del eth0")
            alive = [each for each in alive if each.backend != "b3"]
            ended_by_reset(to("b3", ENDED))
            go_on(alive)
            wait_until(lambda: healthy(balancer) == {"b2", "b4"}, PATIENCE, "b2 and b4 are healthy")
            go_on(alive)


@contextlib.contextmanager
def transfers(hosts: lab.Lab) -> Iterator[list[Transfer]]:
    """Of each family, to each backend, by each service: one that hears alone, one that speaks."""
    every: list[Transfer] = []
    try:
        for family in BOTH:
            for port in (ENDED, KEPT):
                for speaks in (False, True):
                    missing = {each.name for each in hosts.backends}
                    while missing:
                        made = Transfer(hosts.of(family), port, speaks=speaks)
                        if made.backend in missing:
                            missing.remove(made.backend)
                            every.append(made)
                        else:
                            made.end()
        for each in every:
            each.begin()
        yield every
    finally:
        for each in every:
            each.end()


def go_on(every: list[Transfer]) -> None:
    """Wait until each has got further, byte for byte, by much."""
    before = {each: each.received for each in every}

    def are_further() -> bool:
        failed = {each: each.error for each in every if each.error is not None}
        assert not failed
        return all(each.received >= before[each] + MUCH for each in every)

    wait_until(are_further, PATIENCE, f"they go on: {every}")


def ended_by_reset(every: list[Transfer]) -> None:
    """Wait until each has been reset: whether it speaks, or only waits to hear more."""
    wait_until(lambda: all(each.error for each in every), PATIENCE, f"they have ended: {every}")
    # Of one that speaks it may be the writer that is told, and the reader finds the end alone.
    assert {type(each.error) for each in every if not each.speaks} == {ConnectionResetError}
    assert {type(each.error) for each in every} <= {ConnectionResetError, EOFError}


def serve(backend: lab.BackendHost) -> Process:
    """Start the server of streams on a backend's host."""
    script = Path(stream.__file__)
    process = backend.host.start(
        *(sys.executable, "-I", "-S", script, backend.name, str(ENDED), str(KEPT)), stderr=None
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def healthy(balancer: lab.Balancer) -> set[str]:
    """The backends that are healthy by both services, in both families."""
    known = balancer.control.get("/backends")["backends"]
    well = {(each["service"], each["backend"]) for each in known if each["health"] == "healthy"}
    return {
        backend.name
        for backend in balancer.lab.backends
        if all(
            (name, lab.endpoint(lab.ADDRESSES[family].backend(backend.number), port)) in well
            for family in BOTH
            for name, port in (("end", ENDED), ("keep", KEPT))
        )
    }
