"""`llb why`: where a packet would go, without sending it, and why others went nowhere."""

from __future__ import annotations

import json
import socket
from typing import Any

import numpy as np
import pytest

from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.layout import Verdict
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.verdict_words import MEANINGS, meaning, remedy
from tests.netns.conftest import Balance, called, shown
from tests.netns.tables import pinned
from tests.netns.test_observing import held, listed

pytestmark = pytest.mark.netns

CLIENT = "198.51.100.77:40000"
VIP = f"{lab.VIP}:80"


def why(balancer: lab.Balancer, *arguments: str) -> dict[str, Any]:
    """Return what `llb why --json` says."""
    answer: dict[str, Any] = json.loads(shown(balancer, "why", "--json", *arguments))
    return answer


def steps(answer: dict[str, Any]) -> dict[str, str]:
    """Return the text of each step."""
    return {each["step"]: each["text"] for each in answer["steps"]}


def counted(balancer: lab.Balancer) -> dict[str, int]:
    """Return how many packets were not left to the host, by verdict."""
    verdicts = json.loads(shown(balancer, "status", "--json"))["verdicts"]
    return {name: packets for name, packets in verdicts.items() if not name.startswith("pass")}


def test_tells_where_a_packet_would_go_and_changes_nothing(balance: Balance) -> None:
    balancer = balance()
    before = counted(balancer)

    answer = why(balancer, CLIENT, VIP)

    told = steps(answer)
    assert answer["verdict"] == "forward_new"
    assert answer["service"] == "web"
    assert answer["backend"] in {each.endpoint for each in balancer.lab.backends}
    assert told["service"] == f"{VIP}/tcp is the service web"
    assert "by the hash of its addresses and ports; one of 3 active, with 33%" in told["backend"]
    assert answer["snat"] in told["snat"]
    assert "eth1" in told["route"]
    assert told["arrives"] == "by eth0"
    named = why(balancer, CLIENT, VIP, "--interface", "eth1")
    assert steps(named)["arrives"] == "by eth1"
    assert counted(balancer) == before
    assert listed(balancer) == []


def test_a_real_packet_goes_where_it_was_told_to(balance: Balance) -> None:
    balancer = balance()
    with held(balancer.lab, 1):
        (one,) = listed(balancer)

        there = why(balancer, one["client"], VIP, "--flag", "ack")
        back = why(balancer, one["backend"], one["snat"], "--flag", "ack")

    assert there["verdict"] == "forward_to_backend"
    assert (there["backend"], there["snat"]) == (one["backend"], one["snat"])
    assert "belongs to one that is established" in steps(there)["connection"]
    assert back["verdict"] == "forward_to_client"
    assert back["client"] == one["client"]


def test_tells_why_not(balance: Balance) -> None:
    balancer = balance()
    for arguments, verdict in {
        (CLIENT, f"{lab.VIP}:81"): "pass_not_ours",
        (CLIENT, VIP, "--flag", "ack"): "pass_no_connection",
        ("10.0.0.11:9999", "10.0.0.1:2000"): "drop_unknown_answer",
        (CLIENT, VIP, "--length", "2000"): "refuse_too_big",
        ("10.0.0.11:4000", VIP): "forward_new",
    }.items():
        answer = why(balancer, *arguments)

        assert answer["verdict"] == verdict
        assert answer["meaning"] == meaning(Verdict[verdict.upper()])
        assert steps(answer)["verdict"] == answer["meaning"]


def test_what_cant_be_meant_is_refused_in_one_line(balance: Balance) -> None:
    balancer = balance()
    for wrong in (["1.2.3.4", VIP], [CLIENT], [CLIENT, VIP, "--flag", "odd"], ["[::1]:5", VIP],
                  [CLIENT, VIP, "--protocol", "sctp"]):  # fmt: skip
        said = called(balancer, "why", *wrong)
        assert (said.code, said.out) == (2, "")
        assert len(said.err.splitlines()) == 1
    elsewhere = called(balancer, "why", CLIENT, VIP, "--interface", "eth7")
    assert elsewhere.code == 2
    assert 'interface: "eth7": one of eth0, eth1' in elsewhere.err


def test_a_next_hop_that_does_not_answer_is_told_from_one_that_was_not_asked(
    balance: Balance,
) -> None:
    balancer = balance(health='type = "none"')
    host, silent = balancer.lab.lb, "10.0.0.99"
    backends = f'[[backends]]\naddress = "{silent}"\nport = 8080\n'
    lab.replace(balancer.folder / "backends.toml", backends)
    wait_until(
        lambda: why(balancer, CLIENT, VIP)["backend"] == f"{silent}:8080", lab.LIMIT, "it is in"
    )

    def told() -> tuple[str, bool]:
        answer = why(balancer, CLIENT, VIP)
        return steps(answer)["neighbour"], silent in answer["remedy"]

    assert told() == (f"{silent} is not known yet: it is asked", False)
    host.ip(f"neigh replace {silent} lladdr 02:00:00:00:00:63 dev eth0 nud permanent")
    assert told() == (f"{silent} is not known yet: it is asked", False), "not on that interface"
    host.ip(f"neigh replace {silent} lladdr 02:00:00:00:00:63 dev eth1 nud permanent")
    assert told() == (f"{silent} is 02:00:00:00:00:63 (permanent)", False)
    host.ip(f"neigh replace {silent} dev eth1 nud failed")
    failed = f"{silent} did not answer by eth1 when it was asked for its MAC address"
    assert told() == (failed, True)
    host.ip(f"neigh delete {silent} dev eth1")
    host.run("sysctl", "-qw", "net.ipv4.neigh.eth1.mcast_solicit=1000")  # A second each.
    with host.socket(kind=socket.SOCK_DGRAM) as asking:
        asking.sendto(b"", (silent, 9))
    assert told() == (f"{silent} is being asked by eth1, and has not answered yet", True)


def test_drops_are_told_with_the_last_packets_and_what_to_do(balance: Balance) -> None:
    balancer = balance()
    balancer.write_backends([])
    wait_until(
        lambda: why(balancer, CLIENT, VIP)["verdict"] == "drop_no_backend", lab.LIMIT, "none is"
    )
    assert why(balancer, CLIENT, VIP)["remedy"] == remedy(Verdict.DROP_NO_BACKEND)
    balancer.lab.client.run("curl", "-sS", "-m", "1", f"http://{VIP}/", check=False)

    answer = json.loads(shown(balancer, "why", "--json"))
    (drop,) = (each for each in answer["drops"] if each["reason"] == "drop_no_backend")
    text = shown(balancer, "why")

    assert drop["packets"] >= 1
    assert drop["last"][0]["destination"] == VIP
    assert drop["last"][0]["service"] == "web"
    assert drop["remedy"] in text
    balancer.kill()
    assert json.loads(shown(balancer, "why", "--json"))["source"] == "maps"


def test_tells_that_the_tables_are_full(balance: Balance) -> None:
    """The copy has no more room than what it is a copy of."""
    balancer = balance(settings="max_connections = 1024")
    balancer.kill()
    assert why(balancer, CLIENT, VIP)["verdict"] == "forward_new"
    with pinned(balancer, 4) as maps:
        table = MapWriter.of(maps["dnat_table"])
        others = np.zeros(1024, table.spec.key)
        others["sport"] = np.arange(1024)
        table.update_batch(others, table.value_room(1024))

        answer = why(balancer, CLIENT, VIP)
        with balancer.lab.client.socket() as asking:
            asking.setblocking(False)
            asking.connect_ex((lab.VIP, lab.PORT))
            wait_until(
                lambda: counted(balancer).get("drop_table_full"), lab.LIMIT, "it is dropped so"
            )

    assert answer["verdict"] == "drop_table_full"
    assert answer["remedy"] == remedy(Verdict.DROP_TABLE_FULL)


def test_every_verdict_has_words() -> None:
    assert set(MEANINGS) == set(Verdict)
    for verdict in Verdict:
        assert meaning(verdict)
        assert bool(remedy(verdict)) == verdict.name.startswith(("DROP", "REFUSE"))
