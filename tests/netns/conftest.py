"""What tests of real traffic share: a network that is gone afterwards, and LLB running in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llb_core.datapath import Datapath
from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from tests.calling import Called, call

Balance = Callable[..., lab.Balancer]
BOTH_FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
EITHER_FAMILY = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"], indirect=True)
"""The same for the fixture `balancer`."""


def one_more(name: str, *addresses: str) -> str:
    """A service more for a configuration, with the backends of `web`."""
    return f"""
[services.{name}]
address = {json.dumps(addresses)}
port = {lab.PORT}
provider = {{ name = "static", path = "backends.toml" }}
"""


def start(balancer: lab.Balancer) -> None:
    """Start it, and wait until every backend is active, which may be after it first answers."""
    balancer.start()
    backends = balancer.lab.backends
    wait_until(lambda: all(map(balancer.is_active, backends)), lab.LIMIT, "all are active")


def called(balancer: lab.Balancer, *arguments: object) -> Called:
    """Call `llb ARGUMENTS -c llb.toml` on the load balancer's host, in this process."""
    with balancer.lab.lb.entered():
        return call(*arguments, "-c", balancer.config)


def shown(balancer: lab.Balancer, *arguments: object) -> str:
    """Return what such a command prints, which must not fail."""
    done = called(balancer, *arguments)
    assert done.code == 0, done.err
    return done.out


def renewed(balancer: lab.Balancer, family: int) -> lab.Balancer:
    """Have it be as it was at its start: configuration, backends, orders, connections and log; and
    speak of it in one family.
    """
    balancer.lab.start_backends()
    balancer.write_config(families=lab.ADDRESSES)
    balancer.write_backends(balancer.lab.backends, tuple(lab.ADDRESSES))
    if balancer.daemon is None or balancer.daemon.poll() is not None:
        balancer.start()
    control = balancer.control
    control.post("/reload")
    for known in control.get("/backends")["backends"]:
        for order in known["orders"]:
            what = {"backend": known["backend"], "service": known["service"]}
            path, more = _TAKEN_BACK[order["order"]]
            control.post(path, **what, **more)
    each_family = [balancer.lab.of(number) for number in lab.ADDRESSES]
    wanted = {each.endpoint for hosts in each_family for each in hosts.backends}

    def modes() -> dict[str, str]:
        known = control.get("/backends")["backends"]
        return {each["backend"]: each["mode"] for each in known if each["service"] == "web"}

    wait_until(lambda: modes() == dict.fromkeys(wanted, "active"), lab.LIMIT, "all are active")
    for hosts in each_family:
        for backend in hosts.backends:
            control.post("/kill", backend=backend.address)
    balancer.log.write_text("")  # The daemon writes at its end, wherever that is.
    return replace(balancer, lab=balancer.lab.of(family))


_TAKEN_BACK: dict[str, tuple[str, dict[str, None]]] = {
    "drain": ("/undrain", {}),
    "disable": ("/enable", {}),
    "weight": ("/weight", {"weight": None}),
}


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


@pytest.fixture(scope="module")
def standing(hosts: lab.Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Balancer]:
    """LLB in that lab, for both address families, whose daemon the tests of a module share: each
    has it `renewed`, so that none hangs on another."""
    balancer = lab.Balancer(hosts, tmp_path_factory.mktemp("standing"))
    yield balancer
    take_away(balancer)


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
    take_away(balancer)


def take_away(balancer: lab.Balancer) -> None:
    """Kill the daemon, and leave nothing of it on the load balancer's host."""
    balancer.kill()
    with balancer.lab.lb.entered():
        Datapath.detach(balancer.name)
    balancer.remove()
