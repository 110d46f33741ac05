"""Ways through the kernel alone: plain forwarding, nftables' DNAT, IPVS."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.network import proxies
from bench.network.way import HTTP, IPERF, SERVICES, SNAT_ADDRESSES, UDP, Kind, Missing, Way, ready
from llb_core.demo import lab
from llb_core.demo.network import Network


@contextlib.contextmanager
def plain(network: Network, tools: Path) -> Iterator[Way]:
    """The host in the middle forwards, and nothing else."""
    hosts = lab.build_cable(network, "plain")
    hosts.lb.sysctl("net.ipv4.ip_forward=1")
    yield ready("plain", hosts, hosts.backends[0].address, tools)


@contextlib.contextmanager
def nftables(network: Network, tools: Path) -> Iterator[Way]:
    """DNAT to the backend and SNAT to four addresses, by nftables."""
    if shutil.which("nft") is None:
        raise Missing("nft is missing: apt-get install nftables")
    hosts = lab.build_cable(network, "nft")
    backend = hosts.backends[0].address
    hosts.lb.sysctl("net.ipv4.ip_forward=1")
    hosts.lb.ip(*(f"addr add {address}/32 dev eth1" for address in SNAT_ADDRESSES[1:]))
    rules = f"""table ip bench {{
        chain before {{
            type nat hook prerouting priority dstnat;
            ip daddr {lab.VIP} tcp dport {{ {HTTP}, {IPERF} }} dnat to {backend}
            ip daddr {lab.VIP} udp dport {UDP} dnat to {backend}
        }}
        chain after {{
            type nat hook postrouting priority srcnat;
            ip daddr {backend} snat to {SNAT_ADDRESSES[0]}-{SNAT_ADDRESSES[-1]}
        }}
    }}"""
    path = tools / "bench.nft"
    path.write_text(rules)
    hosts.lb.run("nft", "-f", path)
    yield ready("nftables", hosts, lab.VIP, tools)


@contextlib.contextmanager
def ipvs(network: Network, tools: Path) -> Iterator[Way]:
    """IPVS' own NAT: the backend sees the client, and its way back leads through IPVS."""
    ipvsadm = proxies.find("ipvsadm", "ipvsadm")
    if not _kernel_has_ipvs():
        raise Missing("this kernel has no IPVS: its module ip_vs is neither built in nor loadable")
    hosts = lab.build_cable(network, "ipvs")
    backend = hosts.backends[0].address
    hosts.lb.sysctl("net.ipv4.ip_forward=1")
    hosts.lb.ip(f"addr add {lab.VIP}/32 dev lo")
    for _, port, transport in SERVICES:
        service = (f"--{transport}-service", f"{lab.VIP}:{port}")
        hosts.lb.run(*ipvsadm, "--add-service", *service, "--scheduler", "rr")
        server = ("--real-server", f"{backend}:{port}", "--masquerading")
        hosts.lb.run(*ipvsadm, "--add-server", *service, *server)
    yield ready("ipvs", hosts, lab.VIP, tools)


def _kernel_has_ipvs() -> bool:
    # Where there is no modprobe there may still be a kernel that has it built in.
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["modprobe", "ip_vs"], capture_output=True, check=False)
    return Path("/proc/net/ip_vs").exists()


PLAIN = Kind("plain", "plain forwarding", plain)
NFTABLES = Kind("nftables", "nftables DNAT", nftables)
IPVS = Kind("ipvs", "IPVS NAT", ipvs)
