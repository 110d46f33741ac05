"""Ways through a proxy: HAProxy and nginx, as they are tuned for forwarding TCP and UDP as it is.

Neither looks into what it carries (`mode tcp`, `stream`), both have a thread or a worker for each
CPU, a listening queue that does not run over, no log of connections, and all ports of the host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.network.way import CPUS, HTTP, IPERF, SERVICES, Kind, Missing, Way, ready
from llb_core.demo import lab
from llb_core.demo.network import Network, Process
from llb_core.errors import HostError

FETCHED = Path(__file__).parents[2] / ".venv/peers"
"""Where scripts/setup lays Debian's packages out, without installing them."""
BACKLOG = 65535
MOST = 4096
"""Connections at once."""


def find(program: str, package: str) -> list[str]:
    """Return the command of a program, installed or fetched; Missing names what to do."""
    if (installed := shutil.which(program)) is not None:
        return [installed]
    for folder in ("usr/sbin", "sbin"):
        path = FETCHED / folder / program
        if path.exists():
            libraries = ":".join(sorted({str(each.parent) for each in FETCHED.rglob("*.so.*")}))
            return ["env", f"LD_LIBRARY_PATH={libraries}", str(path)]
    raise Missing(
        f"{program} is missing: scripts/setup dev fetches it (apt-get install {package} would "
        "start a service of it, too)"
    )


@contextlib.contextmanager
def haproxy(network: Network, tools: Path) -> Iterator[Way]:
    """HAProxy in TCP mode; it checks the backend as LLB does."""
    command = find("haproxy", "haproxy")
    hosts = _hosts(network, "haproxy")
    backend = hosts.backends[0].address
    text = f"""\
global
    nbthread {CPUS}
    maxconn {MOST}
defaults
    mode tcp
    maxconn {MOST}
    backlog {BACKLOG}
    option tcp-smart-accept
    option tcp-smart-connect
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    timeout check 500ms
"""
    for name, port, transport in SERVICES:
        if transport == "tcp":
            # Bulk is twice as quick spliced; short messages cost less without.
            ways = ("request", "response") if port == IPERF else ("auto",)
            text += f"listen {name}\n" + "".join(f"    option splice-{way}\n" for way in ways)
            text += f"""\
    bind {lab.VIP}:{port}
    server b1 {backend}:{port} check inter 500ms port {HTTP}
"""
    config = tools / "haproxy.cfg"
    config.write_text(text)
    hosts.lb.run(*command, "-c", "-f", config)
    with _running("haproxy", hosts, tools, [*command, "-db", "-f", str(config)]) as way:
        yield way


@contextlib.contextmanager
def nginx(network: Network, tools: Path) -> Iterator[Way]:
    """nginx' stream module, of TCP and UDP."""
    command = find("nginx", "nginx libnginx-mod-stream")
    hosts = _hosts(network, "nginx")
    backend = hosts.backends[0].address
    folder = tools / "nginx"
    folder.mkdir()
    text = f"""\
load_module {_stream_module()};
user root;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes {CPUS};
worker_cpu_affinity auto;
worker_rlimit_nofile {4 * MOST};
events {{
    worker_connections {2 * MOST};
    multi_accept on;
}}
stream {{
    access_log off;
    proxy_connect_timeout 5s;
    proxy_timeout 1m;
    proxy_buffer_size 64k;
"""
    for _, port, transport in SERVICES:
        kind = " udp" if transport == "udp" else f" backlog={BACKLOG}"
        text += f"""\
    server {{
        listen {lab.VIP}:{port}{kind} reuseport;
        proxy_pass {backend}:{port};
    }}
"""
    config = folder / "nginx.conf"
    config.write_text(text + "}\n")
    called = [*command, "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(config)]
    hosts.lb.run(*called, "-t")
    with _running("nginx", hosts, tools, called) as way:
        yield way


def _stream_module() -> Path:
    for root in (Path("/"), FETCHED):
        path = root / "usr/lib/nginx/modules/ngx_stream_module.so"
        if path.exists():
            return path
    raise Missing("nginx' stream module is missing: apt-get install libnginx-mod-stream")


def _hosts(network: Network, name: str) -> lab.Lab:
    hosts = lab.build_cable(network, name)
    hosts.lb.ip(f"addr add {lab.VIP}/32 dev lo")
    hosts.lb.sysctl(
        "net.ipv4.ip_local_port_range=1024 65535",
        "net.ipv4.tcp_tw_reuse=1",
        f"net.core.somaxconn={BACKLOG}",
    )
    return hosts


@contextlib.contextmanager
def _running(name: str, hosts: lab.Lab, tools: Path, command: Sequence[str]) -> Iterator[Way]:
    """Run a proxy; its workers end with it, in a namespace of processes of their own."""
    words = tools / f"{name}.log"
    alone = ("unshare", "--pid", "--fork", "--kill-child=KILL", "--")
    with words.open("w") as log:
        process = hosts.lb.start(*alone, *command, stdout=log, stderr=log)
    way = ready(name, hosts, lab.VIP, tools)
    try:
        way.wait()
        yield way
    except TimeoutError:
        if process.poll() is None:
            raise
        raise HostError(f"{name} ended: {words.read_text().strip()}") from None
    finally:
        _end(process)


def _end(process: Process) -> None:
    """Kill the proxy itself: unshare waits for it, and ends."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        for child in children.split():
            os.kill(int(child), signal.SIGKILL)
        process.wait(10)


HAPROXY = Kind("haproxy", "HAProxy", haproxy, frozenset({"tcp"}))
NGINX = Kind("nginx", "nginx", nginx)
