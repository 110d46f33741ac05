"""Network namespaces, the links between them, and the processes in them; all of it goes at the end.

Every name starts with `llb-PID-`, so that what a killed run left behind can be told from what a
living one uses. Nothing here knows what LLB is, and nothing touches the machine's own interfaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from llb_core.errors import HostError

NAMESPACES = Path("/run/netns")
_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

Process = subprocess.Popen[str]


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return once `condition()` is true; raise TimeoutError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if condition():
            return
        answered = time.monotonic()
        if answered > deadline:
            raise TimeoutError(f"after {seconds:g} s still not: {what}")
        # As long as the asking took: what is waited for needs the processor, too.
        time.sleep(max(0.01, answered - asked))


class Namespace:
    """One network namespace: a host of the test's own."""

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.path = NAMESPACES / name
        self._network = network

    def __repr__(self) -> str:
        return f"Namespace({self.name})"

    def ip(self, *lines: str) -> None:
        """Carry out commands of ip(8), one a line, in this namespace."""
        _ip(*lines, inside=self)

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The command that runs `argv` here, and that ends with the process that started it.

        `ip netns exec` would mount a fresh /sys, without the BPF file system.
        """
        return [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("nsenter", f"--net={self.path}", "--"),
            *map(str, argv),
        ]

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end; with `check`, a failure raises with what it printed."""
        done = subprocess.run(
            self.command(argv),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=None if environment is None else {**os.environ, **environment},
            check=False,
        )
        if check and done.returncode:
            raise HostError(
                f"{self.name}: {' '.join(map(str, argv))}: exit code {done.returncode}: "
                f"{(done.stderr or done.stdout).strip()}"
            )
        return done

    def start(
        self,
        *argv: str | Path,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] | None = subprocess.DEVNULL,
    ) -> Process:
        """Start a command here; it is killed when the network closes."""
        process = subprocess.Popen(
            self.command(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            process_group=0,  # Ctrl-C is for whoever started us, who ends the others in order
        )
        self._network.processes.append(process)
        return process

    def sysctl(self, *settings: str) -> None:
        """Set sysctls: `net.ipv4.ip_forward=1`."""
        with self.entered():
            for name, _, value in (setting.partition("=") for setting in settings):
                Path("/proc/sys", name.replace(".", "/")).write_text(value)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into this namespace: sockets made meanwhile belong to it."""
        with Path("/proc/thread-self/ns/net").open() as home, self.path.open() as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    def socket(
        self, kind: socket.SocketKind = socket.SOCK_STREAM, family: int = 4
    ) -> socket.socket:
        """A new socket of this namespace, of IPv4 or IPv6, with a time limit of 30 s."""
        with self.entered():
            made = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)
        made.settimeout(30)
        return made


class Network:
    """Namespaces and links that exist until the context ends, however it ends."""

    def __init__(self) -> None:
        self._namespaces: dict[str, Namespace] = {}
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise HostError("network namespaces need root: run it with sudo")
        for tool, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
            if shutil.which(tool) is None:
                raise HostError(f"{tool} is missing: apt-get install {package}")
        remove_leftovers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what was started and remove the namespaces; their links go with them."""
        with _uninterrupted():
            for process in self.processes:
                stop(process, signal.SIGKILL)
            self.processes.clear()
            for namespace in self._namespaces.values():
                subprocess.run(
                    ["ip", "netns", "delete", namespace.name], capture_output=True, check=False
                )
            self._namespaces.clear()

    def add(self, role: str) -> Namespace:
        """Make a namespace for a host with that role, its loopback up."""
        namespace = Namespace(f"llb-{os.getpid()}-{role}", self)
        # Known before it is made: an interrupt in between leaves nothing behind.
        self._namespaces[role] = namespace
        _ip(f"netns add {namespace.name}")
        # Nobody else is there to have an IPv6 address already: no waiting to find that out.
        namespace.sysctl("net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
        namespace.ip("link set lo up")
        return namespace

    @property
    def namespaces(self) -> Collection[Namespace]:
        """All there are."""
        return self._namespaces.values()

    def get(self, role: str) -> Namespace:
        """The namespace of the host with that role."""
        return self._namespaces[role]

    def link(self, one: tuple[Namespace, str], other: tuple[Namespace, str]) -> None:
        """Join two hosts by a cable: `(host, interface)` at both ends."""
        (here, name), (there, peer) = one, other
        here.ip(f"link add {name} type veth peer name {peer} netns {there.name}")
        here.ip(f"link set {name} up")
        there.ip(f"link set {peer} up")

    def switch(self, role: str, *ends: tuple[Namespace, str]) -> Namespace:
        """Join several hosts by a switch, in a namespace of its own."""
        switch = self.add(role)
        switch.sysctl("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        switch.ip("link add bridge type bridge forward_delay 0", "link set bridge up")
        # By default a bridge in a new namespace hands what it bridges to netfilter.
        if Path("/proc/sys/net/bridge").exists():
            switch.sysctl(
                "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0"
            )
        for number, (host, interface) in enumerate(ends):
            self.link((host, interface), (switch, f"port{number}"))
            switch.ip(f"link set port{number} master bridge")
        return switch


def stop(process: Process, how: signal.Signals = signal.SIGTERM, seconds: float = 5) -> int:
    """Send a signal to a process of ours, wait, kill it if it stays; give its exit code."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    return process.wait()


def remove_leftovers() -> None:
    """Remove the namespaces of runs that were killed before they could do it themselves."""
    if not NAMESPACES.is_dir():
        return
    for path in NAMESPACES.iterdir():
        match = re.fullmatch(r"llb-(\d+)-[\w.-]+", path.name)
        if match and not Path("/proc", match[1]).exists():
            subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, check=False)


def python(script: str, *arguments: str) -> list[str]:
    """The command that runs one of this package's own scripts, by the standard library alone."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name(script)), *arguments]


def _ip(*lines: str, inside: Namespace | None = None) -> None:
    command = ["ip", "-batch", "-"]
    done = subprocess.run(
        command if inside is None else inside.command(command),
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        where = f" in {inside.name}" if inside else ""
        raise HostError(f"ip{where}: {'; '.join(lines)}: {done.stderr.strip()}")


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back, so that a second Ctrl-C doesn't cut the cleaning short."""
    held: set[Any] = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
