"""A service that moves from one provider to another has both for a while, and never a gap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llb_provider_consul import ConsulProvider
from llb_provider_static import StaticProvider

from llb_core.testing import MemoryBalancer, some_backends, until
from llb_providers.consul.tests.fake_consul import FakeConsul

BACKENDS = some_backends(1, 2)


@pytest.fixture
def consul() -> Iterator[FakeConsul]:
    """An agent that knows the backends too."""
    consul = FakeConsul()
    consul.start()
    for backend in BACKENDS:
        address, port = str(backend.endpoint.address), backend.endpoint.port
        consul.register({"Name": "web", "ID": address, "Address": address, "Port": port})
    yield consul
    consul.stop()


def test_a_move_from_static_to_consul_changes_nothing_in_the_maps(
    consul: FakeConsul, tmp_path: Path
) -> None:
    lines = (
        f'address = "{each.endpoint.address}"\nport = {each.endpoint.port}' for each in BACKENDS
    )
    (tmp_path / "web.toml").write_text("".join(f"[[backends]]\n{line}\n" for line in lines))
    wanted = {each.endpoint for each in BACKENDS}
    with MemoryBalancer(base=tmp_path) as balancer:
        static = balancer.add(StaticProvider, {"path": "web.toml"})
        balancer.turn_until(lambda: balancer.active() == wanted)

        source = balancer.add(ConsulProvider, {"service": "web", "url": consul.url})
        until(lambda: source.is_ready)
        assert not balancer.turn().plan, "the same backend from both is one"

        balancer.sources.remove(static)
        static.close()
        assert not balancer.turn().plan
        assert balancer.active() == wanted

        consul.deregister(str(BACKENDS[0].endpoint.address))
        balancer.turn_until(lambda: balancer.active() == {BACKENDS[1].endpoint})
