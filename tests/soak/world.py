"""The lab of a soak: four backends of both families, clients that never stop asking, a long
transfer and datagrams; and what is expected of them just now.

What happens to it is in `happenings`, what must hold in `invariants`.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from llb_core import config
from llb_core.datapath import Datapath
from llb_core.demo import lab
from llb_core.demo.network import Network, Process, wait_until
from llb_core.demo.traffic import Tally, Traffic
from tests.soak.orders import Orders

FAMILIES = (4, 6)
RATE, WORKERS, KEPT = 100.0, 8, 20
"""Requests a second of each family, by so many workers, on a kept connection so many."""
STREAM_PORT = 7000
STREAM_BYTES = 32 << 20
STREAM = Path(__file__).parents[1] / "netns" / "transfer.py"


@dataclass
class Wanted:
    """What the operator, and those who run the backends, want and do just now. By name: b1 ... b4;
    b4 serves the transfer as well, and is left alone."""

    registered: set[str] = field(default_factory=lambda: {"b1", "b2", "b3", "b4"})
    weights: dict[str, int] = field(default_factory=dict)
    drained: set[str] = field(default_factory=set)
    ill: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    has_extra_service: bool = False
    established: int = 60
    """Minutes: a setting that a reload changes."""

    @property
    def active(self) -> set[str]:
        """Those that get new connections."""
        return self.registered - self.drained - self.ill - self.dead


class World:
    """All of it, until the context ends."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.wanted = Wanted()
        self.findings: list[str] = []
        self.restarts = self.transfers = self.packets = 0
        self.is_other_version = False
        self.may_break = False
        """Whether what happens just now may end connections and lose datagrams."""
        self._folder = folder
        self._stack = ExitStack()
        self._phases = itertools.count(1)
        self._may_fail: dict[str, bool] = {}
        self._allowed: dict[str, set[str]] = {}
        self._judged: collections.Counter[str] = collections.Counter()
        self._counted: dict[int, int] = dict.fromkeys(FAMILIES, 0)

    def __enter__(self) -> Self:
        try:
            network = self._stack.enter_context(Network())
            lab.forget_leftovers()
            self.hosts = lab.build(network, clients=2, backends=4)
            # An address of IPv6 would else go as its interface goes down, and not come back.
            self.hosts.lb.sysctl("net.ipv6.conf.all.keep_addr_on_down=1")
            self.hosts.start_backends()
            self.balancer = lab.Balancer(self.hosts, self._folder)
            self._stack.callback(self.balancer.remove)
            self.orders = Orders(self.balancer)
            self._begin_mounts()
            self.write_config()
            self.write_backends()
            self.start()
            self._serve_streams()
            self.settle()
            self._stack.callback(self._stop_datagrams)
            self.traffics = {
                family: self._stack.enter_context(
                    Traffic(
                        self.hosts.clients,
                        self.hosts.of(family).vip,
                        lab.PORT,
                        rate=RATE,
                        workers=WORKERS,
                        timeout=10,
                    )
                )
                for family in FAMILIES
            }
            self.begin("the beginning")
            self.streams = {family: self._stream(family) for family in FAMILIES}
            self.datagrams = {
                family: Datagrams(self.hosts.of(family), lambda: self.may_break)
                for family in FAMILIES
            }
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # The daemon

    def command(self) -> list[str]:
        """The command `llb`: of one of two versions, with a file system of its own for orders."""
        version = "other" if self.is_other_version else "now"
        mounts = f"--mount=/proc/{self._mounts.pid}/ns/mnt"
        return ["nsenter", mounts, "--", sys.executable, "-m", "tests.versions", version]

    def start(self) -> None:
        """Start the daemon, and wait until it serves."""
        self.restarts += 1
        self.balancer.start()

    def write_config(self) -> None:
        """Write llb.toml as it is wanted just now."""
        vips = json.dumps([lab.ADDRESSES[family].vip for family in FAMILIES])
        more = [("stream", "stream.toml", STREAM_PORT)]
        if self.wanted.has_extra_service:
            more.append(("extra", "backends.toml", 81))
        extra = "".join(
            f"\n[services.{name}]\naddress = {vips}\nport = {port}\n"
            f'[services.{name}.provider]\nname = "static"\npath = "{path}"\n'
            f'[services.{name}.health]\ntype = "none"\n'
            for name, path, port in more
        )
        timeouts = f'timeouts = {{ established = "{self.wanted.established}m" }}'
        self.balancer.write_config(families=FAMILIES, service=timeouts, extra=extra)

    def write_backends(self) -> None:
        """Write the providers' files as they are wanted just now."""
        hosts = [each for each in self.hosts.backends if each.name in self.wanted.registered]
        files = (
            ("backends.toml", lab.BACKEND_PORT, hosts),
            ("udp.toml", lab.UDP_PORT, hosts),
            ("stream.toml", STREAM_PORT, self.hosts.backends[3:]),
        )
        for name, port, those in files:
            lines = [
                f'[[backends]]\naddress = "{lab.ADDRESSES[family].backend(each.number)}"\n'
                f"port = {port}\nweight = {self.wanted.weights.get(each.name, 1)}\n"
                for each in those
                for family in FAMILIES
            ]
            lab.replace(self._folder / name, "\n".join(lines))

    @contextmanager
    def reading(self) -> Iterator[Datapath]:
        """Open the maps that are pinned."""
        reading = Datapath.open_reading(config.load(self.balancer.config).loadbalancer)
        try:
            yield reading
        finally:
            reading.close()

    @property
    def orders_folder(self) -> Path:
        """Where the daemon keeps its orders, as the root of all sees it: 256 KiB."""
        return Path(f"/proc/{self._mounts.pid}/root/var/lib/llb")

    # Traffic

    def begin(self, title: str, *, may_fail: bool = False, allowed: set[str] | None = None) -> str:
        """Count requests that begin from now on apart; say what is allowed of them."""
        name = f"{next(self._phases)} {title}"
        self._may_fail[name] = may_fail
        if allowed is not None:
            self._allowed[name] = set(allowed)
        for traffic in self.traffics.values():
            traffic.phase(name)
        return name

    def carry_on(self, phase: str, requests: int) -> None:
        """Wait until so many requests of that phase have ended, of each family."""
        for traffic in self.traffics.values():
            wait_until(
                lambda: traffic.tallies().get(phase, Tally()).sent >= requests,  # noqa: B023
                lab.LIMIT,
                f"{requests} requests end ({phase})",
            )

    def traffic_ended(self, phase: str) -> int:
        """Return how many requests of a phase have ended, of the family that has more."""
        return max(traffic.tallies().get(phase, Tally()).sent for traffic in self.traffics.values())

    def judge(self) -> None:
        """Note what went otherwise than was allowed, once each."""
        for family, traffic in self.traffics.items():
            for phase, tally in traffic.tallies().items():
                strangers = set(tally.answered) - self._allowed.get(phase, set(tally.answered))
                self._tell(f"IPv{family}: {phase}: answered by {', '.join(sorted(strangers))}, "
                           "which should get nothing", len(strangers))  # fmt: skip
                if not self._may_fail[phase]:
                    for why, number in tally.failed.items():
                        self._tell(f"IPv{family}: {phase}: a request failed: {why}", number)
        for family, stream in self.streams.items():
            if stream.poll() is not None:
                self._judge_stream(family, stream)
        for family, datagrams in self.datagrams.items():
            self._tell(f"IPv{family}: a datagram was answered three times by nobody",
                       datagrams.lost)  # fmt: skip

    def count(self) -> tuple[int, int, int]:
        """Return how many requests were answered, how many failed where they might, and how many
        datagrams came back."""
        tallies = [
            (self._may_fail[phase], tally)
            for traffic in self.traffics.values()
            for phase, tally in traffic.tallies().items()
        ]
        return (
            sum(tally.answered.total() for _, tally in tallies),
            sum(tally.failed.total() for may_fail, tally in tallies if may_fail),
            sum(each.answered for each in self.datagrams.values()),
        )

    def count_packets(self, reading: Datapath) -> None:
        """Add the packets that the classifier has seen since it was asked last."""
        for number, family in reading.families.items():
            now = sum(family.counters().verdicts.values())
            before = self._counted[number]
            # Maps of another layout begin to count anew.
            self.packets += now - before if now >= before else now
            self._counted[number] = now

    def finish(self) -> None:
        """End all traffic, and judge it."""
        for traffic in self.traffics.values():
            traffic.finish(60)
        for stream in self.streams.values():
            assert stream.stdin is not None
            with contextlib.suppress(OSError):
                stream.stdin.write("hurry\n")
                stream.stdin.flush()
            stream.wait(lab.LIMIT)
        self.judge()

    def _tell(self, text: str, number: int) -> None:
        more = number - self._judged[text]
        if more > 0:
            self._judged[text] = number
            self.findings.append(f"{text} ({more} times)")

    def _judge_stream(self, family: int, stream: Process) -> None:
        assert stream.stdout is not None
        last = stream.stdout.read().splitlines()[-1:]
        outcome = json.loads(last[0]) if last and last[0].startswith("{") else {"failed": last}
        if "failed" in outcome:
            self._tell(f"IPv{family}: the transfer: {outcome}", not self.may_break)
        elif outcome["sent"] != outcome["received"]:
            self._tell(f"IPv{family}: the transfer did not arrive as it was sent", 1)
        else:
            self.transfers += 1
        self.streams[family] = self._stream(family)

    def settle(self) -> None:
        """Wait until those that are to get new connections do, of both families, and no others."""
        wait_until(lambda: self._active() == self.wanted.active, lab.LIMIT, "it is as it is wanted")

    def _active(self) -> set[str] | None:
        known = self.balancer.control.get("/backends")["backends"] if self._answers() else []
        names = {
            lab.endpoint(lab.ADDRESSES[family].backend(each.number)): each.name
            for family in FAMILIES
            for each in self.hosts.backends
        }
        active = [
            names[each["backend"]]
            for each in known
            if each["service"] == "web" and each["mode"] == "active"
        ]
        counted = collections.Counter(active)
        return set(active) if all(n == len(FAMILIES) for n in counted.values()) else None

    def _answers(self) -> bool:
        return self.balancer.is_answering()

    def _stream(self, family: int) -> Process:
        vip = self.hosts.of(family).vip
        arguments = ("send", vip, STREAM_PORT, STREAM_BYTES, 1 << 20)
        command = [sys.executable, "-I", "-S", str(STREAM), *map(str, arguments)]
        stderr = subprocess.DEVNULL
        return self.hosts.client.start(*command, stdin=subprocess.PIPE, stderr=stderr)

    def _serve_streams(self) -> None:
        command = [sys.executable, "-I", "-S", str(STREAM), "serve", str(STREAM_PORT)]
        server = self.hosts.backends[3].host.start(*command)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def _begin_mounts(self) -> None:
        mount = "mount -t tmpfs -o size=256k none /var/lib/llb && echo ready && exec sleep infinity"
        Path("/var/lib/llb").mkdir(parents=True, exist_ok=True)
        self._mounts = self.hosts.lb.start("unshare", "-m", "sh", "-c", mount)
        assert self._mounts.stdout is not None
        assert self._mounts.stdout.readline() == "ready\n"
        before = lab.llb_command
        lab.llb_command = self.command
        self._stack.callback(lambda: setattr(lab, "llb_command", before))

    def _stop_datagrams(self) -> None:
        for each in getattr(self, "datagrams", {}).values():
            each.stop()


class Datagrams:
    """Asks by UDP, each time from another port, until it is stopped."""

    def __init__(self, hosts: lab.Lab, may_be_lost: Callable[[], bool]) -> None:
        self.answered = self.lost = 0
        self._hosts = hosts
        self._may_be_lost = may_be_lost
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ends.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ends.wait(0.05):
            may_be_lost = self._may_be_lost()
            with self._hosts.client.socket(socket.SOCK_DGRAM, self._hosts.family) as sock:
                sock.settimeout(2)
                if any(self._is_answered(sock) for _ in range(3)):
                    self.answered += 1
                elif not (may_be_lost or self._may_be_lost()):
                    self.lost += 1

    def _is_answered(self, sock: socket.socket) -> bool:
        try:
            sock.sendto(b"hello", (self._hosts.vip, lab.UDP_PORT))
            return sock.recv(100).endswith(b" hello")
        except OSError:
            return False
