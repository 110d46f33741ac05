"""The doctor on a host of its own, with one fault after the other."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llb_core.datapath import bpf_syscall
from llb_core.demo import lab
from llb_core.demo.network import Namespace, Network, wait_until
from tests.netns.conftest import called, one_more, take_away

pytestmark = pytest.mark.netns


@dataclass
class Patient:
    """A load balancer's host, and what the doctor says of it."""

    balancer: lab.Balancer

    def sh(self, command: str) -> None:
        self.balancer.lab.lb.run(*command.split())

    def findings(self, *before: str) -> dict[str, dict[str, Any]]:
        if before:  # A process of its own: what those commands change is to be seen in it.
            command = (*before, *lab.llb_command(), "doctor", "--json", "-c", self.balancer.config)
            done = self.balancer.lab.lb.run(*command, check=False)
            code, out = done.returncode, done.stdout
        else:
            done = called(self.balancer, "doctor", "--json")
            code, out = done.code, done.out
        said = json.loads(out)
        fails = any(each["state"] == "fail" for each in said["findings"])
        assert said["is_well"] is not fails
        assert code == int(fails)
        for each in said["findings"]:
            assert bool(each["remedy"]) is (each["state"] != "ok"), each
        found = {each["what"]: each for each in said["findings"]}
        assert len(found) == len(said["findings"]), "two findings of one name"
        return found

    def of(self, what: str, *before: str) -> tuple[str, str]:
        finding = self.findings(*before)[what]
        return finding["state"], finding["found"]


@pytest.fixture(scope="module")
def hosts() -> Iterator[lab.Lab]:
    with Network() as network:
        made = lab.build(network, backends=3)
        made.start_backends()
        yield made


@pytest.fixture
def patient(hosts: lab.Lab, tmp_path: Path) -> Iterator[Patient]:
    balancer = lab.Balancer(hosts, tmp_path)
    balancer.write_config()
    balancer.write_backends(hosts.backends)
    for interface in ("all", "eth0", "eth1"):
        hosts.lb.run("sysctl", "-qw", f"net.ipv4.conf.{interface}.rp_filter=0")
    yield Patient(balancer)
    take_away(balancer)


def test_a_host_that_is_well(patient: Patient) -> None:
    before = patient.findings()
    assert before["daemon"]["state"] == "warn"
    assert before["VIPs and SNAT addresses"]["state"] == "warn"
    assert {each["state"] for each in before.values()} <= {"ok", "warn"}
    patient.balancer.start()
    running = patient.findings()
    ill = {what for what, each in running.items() if each["state"] != "ok"}
    assert ill <= {"clock"}, "this machine's own"
    assert running["routes to backends"]["found"] == "to all 6"
    text = patient.balancer.llb("doctor")  # In a process of its own, as an operator does.
    assert "ok    daemon: it answers\n" in text


def test_forwarding_that_somebody_switched_off(patient: Patient) -> None:
    patient.sh("sysctl -qw net.ipv4.ip_forward=0")
    before = patient.findings()["forwarding of IPv4"]
    assert (before["state"], before["remedy"]) == ("warn", "llb run switches it on")
    patient.balancer.start()
    finding: dict[str, Any] = {}

    def is_seen() -> bool:
        finding.update(patient.findings()["forwarding of IPv4"])
        return bool(finding["state"] == "fail")

    has_seen = threading.Event()

    def insist() -> None:
        while not has_seen.wait(0.001):
            patient.balancer.lab.lb.sysctl("net.ipv4.ip_forward=0")

    somebody = threading.Thread(target=insist)  # The daemon switches it on again at once.
    somebody.start()
    try:
        wait_until(is_seen, lab.LIMIT, "it is off when the doctor looks")
    finally:
        has_seen.set()
        somebody.join()
    assert finding["remedy"] == "sysctl -w net.ipv4.ip_forward=1"


def test_a_strict_reverse_path_filter(patient: Patient) -> None:
    patient.sh("sysctl -qw net.ipv4.conf.all.rp_filter=1")
    state, found = patient.of("interface eth1: rp_filter")
    assert state == "warn"
    assert found.startswith("1: answers to health checks")


BPF = 321
"""The number of bpf(2), where it is the same as on x86-64."""
SCHED_CLS, XDP = 3, 6
GO_ON = {SCHED_CLS: -1, XDP: 2}
"""What a program returns to leave a packet alone."""


@contextmanager
def pinned(kind: int, name: str) -> Iterator[Path]:
    """Load a program of two instructions, which leaves every packet alone, and pin it."""
    bpf = ctypes.CDLL(None, use_errno=True).syscall
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, GO_ON[kind], 0x95, 0, 0, 0)
    program, licence = ctypes.create_string_buffer(code, len(code)), ctypes.c_char_p(b"GPL")
    address = ctypes.cast(licence, ctypes.c_void_p).value
    attributes = struct.pack("<IIQQ", kind, 2, ctypes.addressof(program), address)
    descriptor = int(bpf(BPF, 5, ctypes.create_string_buffer(attributes, 128), 128))
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    pin = Path("/sys/fs/bpf", name)
    path = ctypes.create_string_buffer(str(pin).encode())
    attributes = struct.pack("<QI", ctypes.addressof(path), descriptor)
    assert bpf(BPF, 6, ctypes.create_string_buffer(attributes, 128), 128) == 0
    os.close(descriptor)
    try:
        yield pin
    finally:
        pin.unlink()


def test_a_filter_of_somebody_else(patient: Patient) -> None:
    patient.balancer.start()
    what = "interface eth0: programs of others"
    assert patient.of(what) == ("ok", "none")
    with pinned(SCHED_CLS, f"{patient.balancer.name}-x") as pin:
        for priority in (1, 99):
            patient.sh("tc qdisc add dev eth0 clsact")  # LLB itself hangs on TCX, before it.
            filter_add = f"tc filter add dev eth0 ingress prio {priority} protocol ip"
            patient.sh(f"{filter_add} bpf da object-pinned {pin}")
            try:
                state, found = patient.of(what)
            finally:
                patient.sh("tc qdisc del dev eth0 clsact")
            assert state == "ok"
            assert re.sub(r"\([^)]*\)", "(x)", found) == (
                f"a filter of kind bpf (x) of priority {priority} at the ingress, after LLB's"
            )


def test_a_filter_of_somebody_else_at_the_egress(patient: Patient) -> None:
    patient.sh("tc qdisc add dev eth1 clsact")
    with pinned(SCHED_CLS, f"{patient.balancer.name}-y") as pin:
        patient.sh(f"tc filter add dev eth1 egress prio 7 protocol ip bpf da object-pinned {pin}")
        try:
            state, found = patient.of("interface eth1: programs of others")
        finally:
            patient.sh("tc qdisc del dev eth1 clsact")
    assert state == "ok"
    assert re.sub(r"\([^)]*\)", "(x)", found) == (
        "a filter of kind bpf (x) of priority 7 at the egress, after LLB's"
    )


def test_a_firewall_sees_no_balanced_packet(patient: Patient) -> None:
    """Neither at the ingress, which comes after LLB, nor where the packets leave."""
    what, balancer = "firewall and conntrack", patient.balancer
    balancer.start()
    wait_until(lambda: all(map(balancer.is_active, balancer.lab.backends)), lab.LIMIT, "they serve")
    rules = ["add table netdev f"]
    for hook in ("ingress", "egress"):
        rules += [
            f"add chain netdev f {hook} {{ type filter hook {hook} device eth0 priority 0; }}",
            f"add rule netdev f {hook} meta l4proto tcp counter drop",
        ]
    balancer.lab.lb.run("nft", "; ".join(rules))
    try:
        served = balancer.lab.client.run("curl", "-sS", "-m", "30", balancer.lab.url)
        listed = balancer.lab.lb.run("nft", "list table netdev f").stdout
    finally:
        patient.sh("nft delete table netdev f")
    assert served.stdout.strip() in {"b1", "b2", "b3"}
    assert listed.count("counter packets 0 ") == 2
    assert patient.of(what) == ("ok", "balanced packets pass by them")


def test_a_bridge_that_hands_what_arrives_to_the_firewall(patient: Patient) -> None:
    what, text = "firewall and conntrack", patient.balancer.config.read_text()
    lab.replace(patient.balancer.config, text.replace('"eth0"', '"br0"'))
    patient.sh("ip link add br0 type bridge nf_call_iptables 1")
    try:
        state, found = patient.of(what)
        assert state == "warn"
        assert found.startswith("what arrives on the bridge br0 is handed to iptables")
        patient.sh("ip link set br0 type bridge nf_call_iptables 0")
        for each in ("iptables", "ip6tables"):
            patient.sh(f"sysctl -eqw net.bridge.bridge-nf-call-{each}=0")
        assert patient.of(what)[0] == "ok"
    finally:
        patient.sh("ip link del br0")


def test_an_xdp_program(patient: Patient) -> None:
    with pinned(XDP, f"{patient.balancer.name}-xdp") as pin:
        patient.sh(f"ip link set dev eth0 xdpgeneric pinned {pin}")
        try:
            state, found = patient.of("interface eth0: programs of others")
            assert state == "warn"
            assert "an XDP program" in found
        finally:
            patient.sh("ip link set dev eth0 xdpgeneric off")


@contextmanager
def on_tcx(host: Namespace, kind: int) -> Iterator[str]:
    """Hang a program on a TCX hook of eth0, which leaves every packet alone; yield its number and
    name, as the doctor gives them."""
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, GO_ON[SCHED_CLS], 0x95, 0, 0, 0)
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(text), ctypes.addressof(licence)
    head = struct.pack("=IIQQ", SCHED_CLS, 2, *addresses)
    program = bpf_syscall.bpf(bpf_syscall.PROG_LOAD, head.ljust(48, b"\0") + b"somebodys")
    with host.entered():
        link = bpf_syscall.link_create(program, socket.if_nametoindex("eth0"), kind)
    try:
        yield f"a program on TCX (id {bpf_syscall.prog_id(program)}, somebodys)"
    finally:
        os.close(link)
        os.close(program)


def test_programs_of_somebody_else_on_tcx(patient: Patient) -> None:
    """What came before LLB is before it, what came later behind it; at the egress all is behind."""
    what, host = "interface eth0: programs of others", patient.balancer.lab.lb
    ingress, egress = bpf_syscall.TCX_INGRESS, bpf_syscall.TCX_EGRESS
    with on_tcx(host, ingress) as earlier:
        before = f"{earlier} at the ingress, before LLB's"
        assert patient.of(what) == ("warn", before), "it will be"
        patient.balancer.start()
        with on_tcx(host, ingress) as later, on_tcx(host, egress) as leaving:
            after = f"{later} at the ingress, after LLB's, {leaving} at the egress, after LLB's"
            finding = patient.findings()[what]
            assert (finding["state"], finding["found"]) == ("warn", f"{before}, {after}")
            assert finding["remedy"].startswith("see bpftool net show dev eth0, tc filter show")
    with on_tcx(host, ingress) as later:
        assert patient.of(what) == ("ok", f"{later} at the ingress, after LLB's")
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert patient.of(what, *powerless)[0] == "warn", "it can't be seen, which is said"


def test_an_interface_that_is_down(patient: Patient) -> None:
    patient.sh("ip link set eth0 down")
    try:
        assert patient.of("interface eth0") == ("fail", "down")
    finally:
        patient.sh("ip link set eth0 up")


def test_an_interface_that_is_not_there(patient: Patient) -> None:
    text = patient.balancer.config.read_text()
    lab.replace(patient.balancer.config, text.replace('"eth0"', '"eth7"'))
    state, found = patient.of("interface eth7")
    assert state == "fail"
    assert "does not exist" in found


def test_a_backend_without_a_route(patient: Patient) -> None:
    patient.balancer.write_addresses(["10.0.0.11", "192.0.2.7"])
    text = patient.balancer.config.read_text()
    more = one_more("more", lab.ADDRESSES[4].other_vip)
    lab.replace(patient.balancer.config, text.replace('"10.0.0.0/24"', '"0.0.0.0/0"') + more)
    state, found = patient.of("routes to backends")
    assert state == "fail"
    assert "192.0.2.7:8080 (more, web)" in found


def test_a_backend_behind_another_interface(patient: Patient) -> None:
    patient.balancer.write_addresses(["198.51.100.11"])
    text = patient.balancer.config.read_text()
    lab.replace(patient.balancer.config, text.replace('"10.0.0.0/24"', '"0.0.0.0/0"'))
    state, found = patient.of("interface towards backends")
    assert state == "fail"
    assert found.startswith("another than eth1 leads to 198.51.100.11:")


def test_a_backend_that_does_not_answer_to_arp(patient: Patient) -> None:
    patient.balancer.write_addresses(["10.0.0.11", "10.0.0.99"])
    patient.balancer.start()
    what = "neighbours towards backends"
    wait_until(lambda: patient.of(what)[0] == "fail", lab.LIMIT, "the kernel has given up on it")
    assert "10.0.0.99:8080 (web), by 10.0.0.99" in patient.of(what)[1]


def test_snat_ports_that_meet_the_hosts_own(patient: Patient) -> None:
    name = "net.ipv4.ip_local_port_range"
    patient.balancer.lab.lb.run("sysctl", "-qw", f"{name}=20000 60999")
    try:
        state, found = patient.of("SNAT ports")
        assert state == "fail"
        assert "meets the host's own ports" in found
    finally:
        patient.balancer.lab.lb.run("sysctl", "-qw", f"{name}=32768 60999")


def test_an_address_that_somebody_took_away(patient: Patient) -> None:
    patient.balancer.write_config(settings="manage_addresses = false")
    patient.sh(f"ip addr add {lab.VIP}/32 dev lo")
    assert patient.of("VIPs and SNAT addresses")[0] == "ok"
    patient.sh(f"ip addr del {lab.VIP}/32 dev lo")
    state, found = patient.of("VIPs and SNAT addresses")
    assert (state, found) == ("fail", f"{lab.VIP} missing on this host")


def test_rights_and_limits_of_whoever_calls(patient: Patient) -> None:
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    state, found = patient.of("capabilities", *powerless)
    assert state == "fail"
    assert "CAP_BPF" in found


def test_how_many_files_the_daemon_may_open(patient: Patient) -> None:
    """It raises its soft limit to the hard one, and the caller's are not its own."""
    assert patient.of("open files", "prlimit", "--nofile=200:4096") == ("ok", "4096 may be open")
    few = ("prlimit", "--nofile=200")
    assert patient.of("open files", *few) == ("warn", "200 may be open, 1024 may be needed")
    patient.balancer.command = ("prlimit", "--nofile=100:2000", *lab.llb_command())
    patient.balancer.start()
    assert patient.of("open files", *few) == ("ok", "2000 may be open")


def test_a_wrong_configuration(patient: Patient) -> None:
    lab.replace(patient.balancer.config, "[loadbalancer]\n")
    state, found = patient.of("configuration")
    assert state == "fail"
    assert "is missing" in found
