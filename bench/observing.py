"""Measure how quickly one sees what goes on: the real daemon, real maps, commands as they are run.

A command's output goes to a file; its time is that of its process, from beginning to end. Meanwhile
the daemon is asked over and over for what costs it nothing: the longest of these answers is the
longest for which its loop was held up.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.watching import Cost, median, watched
from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.family import Family, pinned
from llb_core.datapath.layout import ANSWERED, ASSURED, ConnectionState, Records, records
from llb_core.datapath.programs import ticks_now
from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from llb_core.model import Address
from llb_core.run_folder import RunFolder

CONNECTIONS = 1_000_000
OF_ONE_SERVICE = 40
"""Backends that carry them: one has ports for some 31,000."""
SERVICES, BACKENDS_EACH = 1_000, 10
PORTS = 10_000
"""The first service's; the next ones' follow."""
LISTEN = "127.0.0.1:9310"
LIMIT = 180.0
BACKENDS = {4: ("10.16.0.0", "10.16.0.0/12", "10.0.0.0/8"),
            6: ("fd00:16::", "fd00:16::/64", "fd00::/16")}  # fmt: skip
"""The first one, the route to all, and the networks of backends."""
CLIENTS = {4: "198.18.0.0", 6: "2001:db8:18::"}
PORTS_OF_A_CLIENT = 250
ESTABLISHED = ConnectionState.ESTABLISHED | ANSWERED | ASSURED
AT_ONCE = 8_192

Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """A command, and how many lines it must print; None where that isn't known."""

    name: str
    command: Sequence[str | Path]
    lines: int | None = None


@contextlib.contextmanager
def site(
    services: int, backends: int, *, connections: int = 65_536, family: int = 4
) -> Iterator[lab.Balancer]:
    """A daemon with so many services of so many backends each, all of them active."""
    start, route, networks = BACKENDS[family]
    first = ipaddress.ip_address(start)
    with Network() as network, tempfile.TemporaryDirectory(prefix="llb-bench-") as folder:
        hosts = lab.build(network, family=family)
        hosts.lb.ip(f"route add {route} dev {hosts.private_interface}")
        balancer = lab.Balancer(hosts, Path(folder))
        for number in range(services):
            own = [first + number * backends + place for place in range(1, backends + 1)]
            text = json.dumps({"backends": [{"address": str(e), "port": 8080} for e in own]})
            (balancer.folder / f"{number}.json").write_text(text)
        balancer.write_config(
            f"""\
[loadbalancer]
name              = "{balancer.name}"
public_interface  = "{hosts.public_interface}"
private_interface = "{hosts.private_interface}"
backend_cidrs     = ["{networks}"]
snat_addresses    = ["{hosts.addresses.backend(1)}"]
max_connections   = {connections}

[api]
listen = "{LISTEN}"
"""
            + "".join(_service(number, hosts.vip) for number in range(services))
        )
        try:
            balancer.start()
            wait_until(
                lambda: _active(balancer) == services * backends, LIMIT, "all backends are active"
            )
            yield balancer
        finally:
            balancer.remove()


def _service(number: int, vip: str) -> str:
    return f"""
[services.s{number}]
address  = "{vip}"
port     = {PORTS + number}
provider = {{ name = "static", path = "{number}.json" }}
health   = {{ type = "none" }}
"""


def _active(balancer: lab.Balancer) -> int:
    services: list[dict[str, Any]] = balancer.control.get("/status")["services"]
    return sum(each["active"] for each in services)


def fill(family: Family, connections: int, service: str = "s0") -> bool:
    """Make the tables hold that many established connections, over all backends of a service;
    return whether they all stayed in."""
    of, installed = records(family.number), family.installed(with_tables=False)
    (slot,) = [slot for slot, each in installed.services.items() if each.name == service]
    vip = installed.services[slot].key.endpoint
    own = [each for each in installed.backends.values() if each.service_slot == slot]
    backends = sorted(own, key=lambda each: each.slot)
    snat = ipaddress.ip_address(lab.ADDRESSES[family.number].backend(1))
    dnat_table, snat_table = (MapWriter.of(family.maps[n]) for n in ("dnat_table", "snat_table"))
    now = ticks_now()
    for start in range(0, connections, AT_ONCE):
        turn = np.arange(start, min(start + AT_ONCE, connections))
        keys, twin_keys = np.zeros(len(turn), of.flow_key), np.zeros(len(turn), of.flow_key)
        halves, twins = np.zeros(len(turn), of.nat_entry), np.zeros(len(turn), of.nat_entry)
        place = turn % len(backends)
        client = ipaddress.ip_address(CLIENTS[family.number])
        _set_addresses(of, keys["src"], client, turn // PORTS_OF_A_CLIENT)
        _set_addresses(of, keys["dst"], vip.address, np.zeros_like(turn))
        keys["sport"], keys["dport"] = 32_768 + turn % PORTS_OF_A_CLIENT, vip.port
        _set_addresses(of, halves["new_src"], snat, np.zeros_like(turn))
        _set_addresses(of, halves["new_dst"], backends[0].endpoint.address, place)
        halves["new_sport"], halves["new_dport"] = 1_024 + turn // len(backends), 8080
        for key, half in (("src", "new_dst"), ("dst", "new_src"),
                          ("sport", "new_dport"), ("dport", "new_sport")):  # fmt: skip
            twin_keys[key], twins[half] = halves[half], keys[key]
        halves["packets"], halves["bytes"] = 10 + turn % 90_000, 600 + turn * 40
        twins["packets"], twins["bytes"] = 10 + turn % 70_000, 600 + turn * 1_400
        for key_records, half_records in ((keys, halves), (twin_keys, twins)):
            key_records["proto"] = 6
            half_records["state"] = ESTABLISHED
            half_records["seen"], half_records["checked"] = now, now & 0xFFFF
            half_records["opened"] = now - turn
            half_records["backend"] = np.array([each.slot for each in backends])[place]
            half_records["service"] = slot
        dnat_table.update_batch(keys, halves)
        snat_table.update_batch(twin_keys, twins)
    return all(
        connections == sum(int((halves["service"] == slot).sum()) for _, halves in table.chunks())
        for table in (dnat_table, snat_table)
    )


def _set_addresses(of: Records, column: Any, first: Address, steps: Any) -> None:
    """Set a column to addresses, each so many behind the first."""
    words = of.words(column)
    words[:] = of.pack(first)
    words[:, -1] = words[:, -1] + steps


def listing(balancer: lab.Balancer, connections: int, family: int) -> list[Case]:
    """What is asked of a million connections."""
    llb: list[str | Path] = [*lab.llb_command(), "connections", "-c", balancer.config]
    name = f"{connections:,} connections of IPv{family}"
    return [
        Case(f"{name}: all, as text", (*llb, "--limit", "0"), connections + 1),
        Case(f"{name}: all, as JSON", (*llb, "--limit", "0", "--json"), connections + 2),
        Case(f"{name}: the first 100 by age", llb, 101),
        Case(f"{name}: the first 100 by bytes", (*llb, "--sort", "bytes"), 101),
        Case(
            f"{name}: those of one client",
            (*llb, "--client", CLIENTS[family]),
            1 + min(100, PORTS_OF_A_CLIENT, connections),
        ),
    ]


def asking(balancer: lab.Balancer, services: int, backends: int) -> list[Case]:
    """What is asked of a thousand services."""
    llb: list[str | Path] = [*lab.llb_command()]
    config = ("-c", balancer.config)
    name = f"{services:,} services, {services * backends:,} backends"
    return [
        Case(f"{name}: llb status", (*llb, "status", *config)),
        Case(f"{name}: llb status --json", (*llb, "status", "--json", *config), 1),
        Case(f"{name}: llb backends", (*llb, "backends", *config), services * backends + 1),
        Case(f"{name}: scrape", ("curl", "-sSf", "--compressed", f"http://{LISTEN}/metrics")),
    ]


def measure(
    repetitions: int,
    say: Say,
    *,
    families: Sequence[int] = (4, 6),
    connections: int = CONNECTIONS,
    services: int = SERVICES,
) -> dict[str, Cost]:
    """Return the medians by what was asked."""
    found: dict[str, Cost] = {}
    for family in families:
        with site(1, OF_ONE_SERVICE, connections=connections, family=family) as balancer:
            with pinned(balancer.name) as opened:
                # The daemon takes away what it meets of which only one half is in.
                is_full = partial(fill, opened[family], connections)
                wait_until(is_full, LIMIT, "all are in")
            found |= _repeated(balancer, listing(balancer, connections, family), repetitions, say)
    if not services:
        return found
    with site(services, BACKENDS_EACH) as balancer:
        found |= _repeated(balancer, asking(balancer, services, BACKENDS_EACH), repetitions, say)
    return found


def _repeated(
    balancer: lab.Balancer, cases: Iterable[Case], repetitions: int, say: Say
) -> dict[str, Cost]:
    return {
        case.name: median([_run(balancer, case, say) for _ in range(repetitions)]) for case in cases
    }


def _run(balancer: lab.Balancer, case: Case, say: Say) -> Cost:
    output = balancer.folder / "output"
    command = balancer.lab.lb.command(case.command)
    assert balancer.daemon is not None
    cost = watched(command, output, balancer.daemon.pid, RunFolder(balancer.name).socket)
    with output.open("rb") as file:
        lines = sum(1 for _ in file)
    if not lines or case.lines not in (None, lines):
        raise SystemExit(f"{case.name}: {lines} lines, not {case.lines}")
    say(f"{case.name}: {cost}")
    return cost


COLUMNS = (
    "", "seconds", "processor: command", "reader", "daemon", "peak MiB: command", "reader",
    "the daemon grew by", "its loop held up, ms",
)  # fmt: skip


def table(found: dict[str, Cost]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    lines += [
        f"| {name} | {each.seconds:.2f} | {each.cpu_command:.2f} | {each.cpu_reader:.2f} | "
        f"{each.cpu_daemon:.2f} | {each.peak_command:.0f} | {each.peak_reader:.0f} | "
        f"{each.growth_daemon:.0f} | {each.held_up:.0f} |"
        for name, each in found.items()
    ]
    return "\n".join(lines)
