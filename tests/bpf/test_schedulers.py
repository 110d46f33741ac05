"""Which backend a new connection goes to: by each scheduler, while some drain or start."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from scapy.packet import Packet

from llb_core.datapath.layout import Verdict
from llb_core.map_sync import MapSync
from llb_core.model import BackendMode, Policy, Scheduler, Transport
from tests.bpf.harness import world
from tests.bpf.harness.packets import SEQ, tcp
from tests.bpf.harness.rig import ETHERNET, Rig, to_frame

pytestmark = pytest.mark.root

A, B, C = "10.0.0.2", "10.0.0.3", "10.0.0.5"
CLIENT = "192.0.2.10"
PORT = 90  # of a service that no other test leaves behind


def serve(rig: Rig, policy: Policy, **weights: int) -> None:
    """Serve backends of these weights, a negative one for a backend that drains; the policy's
    prefix is one of IPv4."""
    policy = replace(policy, affinity_prefix=world.prefix(policy.affinity_prefix))
    addresses = {"a": A, "b": B, "c": C}
    backends = [
        world.backend(
            addresses[name],
            8080,
            rig.private_index,
            weight=max(weight, 0),
            mode=BackendMode.ACTIVE if weight > 0 else BackendMode.DRAINING,
        )
        for name, weight in weights.items()
    ]
    rig.install(world.service("ours", Transport.TCP, PORT, backends, policy))


def syn(client: str, port: int, flags: str = "S") -> Packet:
    return tcp(client, world.VIP, port, PORT, flags)


def syn_frame(client: str, port: int, family: int) -> bytes:
    """A SYN whose TCP checksum is wrong, which no scheduler looks at."""
    before, behind = _frame_around_port(client, family)
    return before + port.to_bytes(2, "big") + behind


@functools.cache
def _frame_around_port(client: str, family: int) -> tuple[bytes, bytes]:
    frame = to_frame(syn(client, 0), world.PUBLIC)
    at = ETHERNET + (20 if family == 4 else 40)
    return frame[:at], frame[at + 2 :]


def connect(rig: Rig, clients: Iterable[str] = (CLIENT,), ports: Sequence[int] = ()) -> list[str]:
    """Open connections; return their backends."""
    chosen = []
    for client in clients:
        for port in ports or range(2000, 2300):
            outcome = rig.send(syn_frame(client, port, rig.family))
            assert outcome.verdict is Verdict.FORWARD_NEW
            chosen.append(outcome.dst)
    return chosen


def share(chosen: list[str]) -> dict[str, float]:
    return {address: count / len(chosen) for address, count in sorted(Counter(chosen).items())}


def test_round_robin_takes_turns(rig: Rig) -> None:
    serve(rig, Policy(Scheduler.ROUND_ROBIN), a=1, b=1, c=1)

    chosen = connect(rig)

    assert set(Counter(chosen).values()) == {100}
    assert all(one != other for one, other in pairwise(chosen))


def test_round_robin_spreads_turns_by_weight(rig: Rig) -> None:
    serve(rig, Policy(Scheduler.ROUND_ROBIN), a=3, b=1)

    chosen = connect(rig)

    rounds = [Counter(chosen[place : place + 4]) for place in range(len(chosen) - 4)]
    assert all(one == {A: 3, B: 1} for one in rounds)


def test_least_connections_keeps_backends_as_full_as_their_weights(rig: Rig) -> None:
    serve(rig, Policy(Scheduler.LEAST_CONNECTIONS), a=2, b=1, c=1)

    connect(rig)

    loads = sorted(rig.loads.connections()[1].values())
    assert loads[2] in range(145, 156)
    assert loads[1] - loads[0] <= 6


def test_least_connections_fills_a_backend_that_has_fewer(rig: Rig) -> None:
    serve(rig, Policy(Scheduler.LEAST_CONNECTIONS), a=1, b=1)
    first = connect(rig, ports=range(2000, 2100))
    for port, backend in zip(range(2000, 2100), first, strict=True):
        if backend == A:
            rig.send(tcp(CLIENT, world.VIP, port, PORT, "R", seq=SEQ + 1))

    second = connect(rig, ports=range(3000, 3040))

    assert (
        Counter(second)[A] > 25
    )  # half of the pairs that are drawn hold both; of A alone a quarter


def test_source_sends_all_connections_of_a_client_to_one_backend(rig: Rig) -> None:
    serve(rig, Policy(Scheduler.SOURCE), a=1, b=1, c=1)

    chosen = {client: set(connect(rig, [client], range(2000, 2040))) for client in clients(30)}

    assert all(len(backends) == 1 for backends in chosen.values())
    assert set().union(*chosen.values()) == {A, B, C}


def test_source_takes_a_network_for_one_client(rig: Rig) -> None:
    serve(rig, Policy(Scheduler.SOURCE, affinity_prefix=28), a=1, b=1, c=1)

    chosen = dict(zip(clients(64), connect(rig, clients(64), [2000]), strict=True))

    networks = [set(list(chosen.values())[first : first + 16]) for first in (0, 16, 32, 48)]
    assert all(len(backends) == 1 for backends in networks)
    assert len(set().union(*networks)) > 1


def test_source_honours_weights(rig: Rig) -> None:
    serve(rig, Policy(Scheduler.SOURCE), a=3, b=1)

    chosen = connect(
        rig, [f"192.0.{third}.{last}" for third in (2, 3) for last in range(150)], [2000]
    )

    assert 0.68 < share(chosen)[A] < 0.82


@pytest.mark.parametrize("scheduler", Scheduler)
def test_backend_that_drains_or_weighs_nothing_gets_nobody(rig: Rig, scheduler: Scheduler) -> None:
    serve(rig, Policy(scheduler), a=1, b=1, c=1)
    (kept,) = connect(rig, ports=[1999])
    others = {A: {"b": 1, "c": 1}, B: {"a": 1, "c": 1}, C: {"a": 1, "b": 1}}[kept]
    name = {A: "a", B: "b", C: "c"}[kept]

    serve(rig, Policy(scheduler), **dict(sorted({**others, name: -1}.items())))

    chosen = connect(rig, clients(30), range(2000, 2010))
    assert set(chosen) == {A, B, C} - {kept}
    assert rig.send(syn(CLIENT, 1999, "A")).dst == kept


@pytest.mark.parametrize("scheduler", Scheduler)
def test_backend_that_starts_gets_its_share_little_by_little(
    rig: Rig, scheduler: Scheduler
) -> None:
    policy = Policy(scheduler, slow_start=100.0)
    serve(rig, policy, a=1, b=1)
    rig.pass_time(100)
    rig.install(*rig_services(rig, policy))
    shares = []

    for seconds in (0, 50, 49, 1):
        rig.pass_time(seconds)
        rig.forget_connections()
        chosen = connect(rig, clients(300), [2000])
        shares.append(share(chosen).get(C, 0.0))

    whole = shares[-1]
    assert 0.28 < whole < 0.39
    assert 0 < shares[0] < 0.08
    assert 0.12 < shares[1] < 0.28
    assert shares[2] > 0.26


def test_client_that_has_come_to_a_starting_backend_stays_there(rig: Rig) -> None:
    policy = Policy(Scheduler.SOURCE, slow_start=100.0)
    serve(rig, policy, a=1, b=1)
    rig.pass_time(100)
    before = connect(rig, clients(200), [2000])
    rig.install(*rig_services(rig, policy))
    moved: list[set[str]] = []
    stayed: list[set[str]] = []

    for _ in range(4):
        rig.pass_time(25)
        rig.forget_connections()
        now = dict(zip(clients(200), connect(rig, clients(200), [2000]), strict=True))
        moved.append({client for client in now if now[client] == C})
        stayed.append({c for c, old in zip(clients(200), before, strict=True) if now[c] == old})

    assert all(len(each | moved[-1]) >= 198 for each in stayed)  # 1 % beside those that must
    assert all(one <= other for one, other in pairwise(moved))


def test_all_that_start_at_once_share_by_weight(rig: Rig) -> None:
    serve(rig, Policy(slow_start=100.0), a=1, b=1, c=1)

    assert all(0.2 < part < 0.47 for part in share(connect(rig)).values())


def test_slow_start_goes_on_where_it_was_for_a_daemon_that_starts_anew(rig: Rig) -> None:
    serve(rig, Policy(slow_start=100.0), a=1, b=1)
    rig.pass_time(30)
    begun = {each.endpoint: each.started for each in rig.sync.installed().backends.values()}

    rig.sync = MapSync(rig.datapath)
    serve(rig, Policy(slow_start=100.0), a=1, b=1, c=1)

    known = {each.endpoint: each.started for each in rig.sync.installed().backends.values()}
    assert {endpoint: known[endpoint] for endpoint in begun} == begun


def test_counts_that_have_drifted_are_put_right(rig: Rig) -> None:
    serve(rig, Policy(Scheduler.LEAST_CONNECTIONS), a=1, b=1)
    connect(rig, ports=range(2000, 2050))
    right = rig.loads.connections()
    rig.loads.drift(-7)

    rig.sync.collect()
    assert rig.loads.connections() != right  # it might be that something just came
    rig.sync.collect()
    assert rig.loads.connections() == right
    rig.sync.collect()
    assert rig.loads.connections() == right


def clients(number: int) -> list[str]:
    """Addresses of as many clients, on from the beginning of a network."""
    return [f"192.0.{2 + each // 256}.{each % 256}" for each in range(number)]


def rig_services(rig: Rig, policy: Policy) -> tuple[world.DesiredService, ...]:
    """The service with one backend more."""
    policy = replace(policy, affinity_prefix=world.prefix(policy.affinity_prefix))
    backends = [world.backend(address, 8080, rig.private_index) for address in (A, B, C)]
    return (world.service("ours", Transport.TCP, PORT, backends, policy),)
