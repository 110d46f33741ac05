"""Ways through LLB: the real daemon, on the kernel's best hook and on clsact."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.network.way import HTTP, SERVICES, SNAT_ADDRESSES, Kind, Way, ready
from llb_core.demo import lab
from llb_core.demo.network import Network

WITHOUT_TCX = Path(__file__).with_name("without_tcx.py")


@contextlib.contextmanager
def llb(network: Network, tools: Path) -> Iterator[Way]:
    """LLB as it comes, with four SNAT addresses."""
    with _running(network, tools, "llb", []) as way:
        yield way


@contextlib.contextmanager
def llb_clsact(network: Network, tools: Path) -> Iterator[Way]:
    """The same on clsact, as on a kernel before 6.6."""
    with _running(network, tools, "llb-clsact", [sys.executable, str(WITHOUT_TCX)]) as way:
        yield way


@contextlib.contextmanager
def _running(network: Network, tools: Path, name: str, command: list[str]) -> Iterator[Way]:
    hosts = lab.build_cable(network, name)
    folder = tools / name
    folder.mkdir()
    balancer = lab.Balancer(hosts, folder, command=command)
    backend = hosts.backends[0].address
    text = f"""\
[loadbalancer]
name              = "{balancer.name}"
public_interface  = "eth0"
private_interface = "eth1"
backend_cidrs     = ["10.0.0.0/24"]
snat_addresses    = {json.dumps(SNAT_ADDRESSES)}
"""
    for service, port, transport in SERVICES:
        lab.replace(
            folder / f"{service}.toml", f'[[backends]]\naddress = "{backend}"\nport = {port}\n'
        )
        text += f"""
[services.{service}]
address  = "{lab.VIP}"
port     = {port}
protocol = "{transport}"

[services.{service}.provider]
name = "static"
path = "{service}.toml"

[services.{service}.health]
type = "tcp"
port = {HTTP}
"""
    balancer.write_config(text)
    way = ready(name, hosts, lab.VIP, tools)
    try:
        balancer.start()
        yield way
    finally:
        balancer.remove()


LLB = Kind("llb", "LLB", llb)
LLB_CLSACT = Kind("llb-clsact", "LLB on clsact", llb_clsact)
