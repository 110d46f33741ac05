"""What tests of real traffic share: a network that is gone afterwards, and LLB running in it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llb_core.datapath import Datapath
from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until

Balance = Callable[..., lab.Balancer]
BOTH_FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
EITHER_FAMILY = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"], indirect=True)
"""The same for the fixture `balancer`."""


def one_more(name: str, address: str) -> str:
    """A service more for a configuration, with the backends of `web`."""
    return f"""
[services.{name}]
address = "{address}"
port = {lab.PORT}
provider = {{ name = "static", path = "backends.toml" }}
"""


def compiled(name: str, folder: Path) -> Path:
    """Compile a program of `native/` into a folder."""
    source = Path(__file__).with_name("native") / f"{name}.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-o", folder / name, source], check=True)
    return folder / name


@pytest.fixture
def network() -> Iterator[Network]:
    """Namespaces of the test's own."""
    with Network() as made:
        lab.forget_leftovers()
        yield made


@contextmanager
def balancing(
    network: Network,
    folder: Path,
    clients: int = 1,
    backends: int = 3,
    one_arm: bool = False,
    family: int = 4,
    **changes: Any,
) -> Iterator[lab.Balancer]:
    """A lab with LLB running in it, every backend active.

    What `lab.build` does not take changes the configuration.
    """
    hosts = lab.build(network, clients, backends, one_arm, family)
    hosts.start_backends()
    balancer = lab.Balancer(hosts, folder)
    try:
        balancer.write_config(**changes)
        families = changes.get("families", (family,))
        balancer.write_backends(hosts.backends, families)
        balancer.start()
        wanted = [each for number in families for each in hosts.of(number).backends]
        wait_until(lambda: all(map(balancer.is_active, wanted)), lab.LIMIT, "all are active")
        yield balancer
    finally:
        balancer.remove()
        print(balancer.last_words())  # pytest shows it where the test failed


@pytest.fixture
def balance(network: Network, tmp_path: Path) -> Iterator[Balance]:
    """Make a lab with LLB running in it: `balance(clients=2, …)`, as `balancing` takes them."""
    with ExitStack() as stack:
        yield lambda *args, **changes: stack.enter_context(
            balancing(network, tmp_path, *args, **changes)
        )


@pytest.fixture(scope="module")
def hosts() -> Iterator[lab.Lab]:
    """A lab for the tests of a module, one after the other; its backends are those to kill and to
    start."""
    with Network() as network:
        yield lab.build(network, backends=3)


@pytest.fixture
def family(request: pytest.FixtureRequest) -> int:
    """The address family of `balancer`: of IPv4, unless the test is of both (`EITHER_FAMILY`)."""
    return int(getattr(request, "param", 4))


@pytest.fixture
def balancer(hosts: lab.Lab, family: int, tmp_path: Path) -> Iterator[lab.Balancer]:
    """LLB in that lab, configured for one address family, and not started yet."""
    hosts.start_backends()
    balancer = lab.Balancer(hosts.of(family), tmp_path)
    balancer.write_config()
    balancer.write_backends(hosts.backends)
    yield balancer
    balancer.kill()
    with hosts.lb.entered():
        Datapath.detach(balancer.name)
    balancer.remove()
