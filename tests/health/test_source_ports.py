"""Probes leave from ports that no balanced connection has."""

from __future__ import annotations

import socket

import pytest

from llb_core.errors import ConfigurationError
from llb_core.health.source_ports import PortRange, SourcePorts, largest_gap, source_ports
from tests.health.servers import silent


@pytest.mark.parametrize(
    ("within", "without", "expected"),
    [
        pytest.param((32768, 60999), (1024, 32767), (32768, 60999), id="apart"),
        pytest.param((32768, 60999), (1024, 40000), (40001, 60999), id="overlapping below"),
        pytest.param((32768, 60999), (50000, 65535), (32768, 49999), id="overlapping above"),
        pytest.param((32768, 60999), (40000, 50000), (50001, 60999), id="inside: the larger part"),
        pytest.param((32768, 60999), (1024, 65535), None, id="none left"),
        pytest.param((32768, 60999), (1024, 60900), None, id="too few left"),
    ],
)
def test_ports_clear_of_the_snat_ports(
    within: PortRange, without: PortRange, expected: PortRange | None
) -> None:
    assert largest_gap(within, without) == expected


def test_refuses_snat_ports_that_leave_no_room() -> None:
    with pytest.raises(ConfigurationError, match="snat_ports: 1024-65500 leaves no 512 ports"):
        source_ports((1024, 65500))


def test_binds_by_itself_where_all_ephemeral_ports_are_snat_ports() -> None:
    ports = source_ports((20000, 65535))
    assert (ports.ports, ports.chosen_by_kernel) == ((1024, 19999), False)


@pytest.mark.parametrize("chosen_by_kernel", [True, False], ids=["by the kernel", "by itself"])
def test_a_connection_leaves_from_these_ports(chosen_by_kernel: bool) -> None:
    ports = SourcePorts((40000, 40015), chosen_by_kernel=chosen_by_kernel)
    with silent() as target:
        for _ in range(16):
            with socket.socket() as probe:
                probe.setblocking(False)
                ports.bind(probe)
                probe.connect_ex((str(target.address), target.port))
                assert 40000 <= probe.getsockname()[1] <= 40015


def test_passes_over_a_port_that_somebody_listens_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as probe:
        taken = listener.getsockname()[1]
        SourcePorts((taken, taken + 15), chosen_by_kernel=False).bind(probe)
        assert taken < probe.getsockname()[1] <= taken + 15
