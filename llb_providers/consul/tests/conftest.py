"""Agents to test against: the fake one always, and a real one where CONSUL_HTTP_ADDR names it.

What every agent must do is tested with `consul`, by the same calls for each; faults, and what only
a fake can show, with `fake`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import consul as py_consul  # type: ignore[import-untyped]
import pytest
from llb_provider_consul import ConsulOptions, ConsulProvider

from llb_core import Backend, ProviderContext
from llb_core.testing import Calling, until
from llb_providers.consul.tests.fake_consul import FakeConsul

REAL_AGENT = os.environ.get("CONSUL_HTTP_ADDR", "")


class Agent:
    """An agent under test, fake or real, and the services that the test has registered with it."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        self.url = url
        self.environment = environment
        self.service = f"llb-test-{uuid.uuid4().hex[:12]}"
        address = url.removeprefix("http://")
        host, _, port = address.partition(":")
        self.client = py_consul.Consul(host=host, port=int(port or 8500), scheme="http")
        self._registered: set[str] = set()

    @property
    def node_address(self) -> str:
        return str(self.client.agent.self()["Member"]["Addr"])

    def register(
        self,
        name: str,
        address: str | None,
        port: int | None = 80,
        status: str = "passing",
        **more: Any,
    ) -> None:
        """Register an instance, with a check in that state."""
        identity = self._identity(name)
        check = {"CheckID": f"service:{identity}", "TTL": "1h", "Status": status}
        assert self.client.agent.service.register(
            self.service, identity, address=address, port=port, check=check, **more
        )
        self._registered.add(identity)

    def deregister(self, name: str) -> None:
        identity = self._identity(name)
        assert self.client.agent.service.deregister(identity)
        self._registered.discard(identity)

    def set_status(self, name: str, status: str) -> None:
        check = self.client.agent.check
        update = {"passing": check.ttl_pass, "warning": check.ttl_warn, "critical": check.ttl_fail}
        assert update[status](f"service:{self._identity(name)}")

    def maintain(self, name: str, *, is_on: bool = True) -> None:
        enable = "true" if is_on else "false"
        assert self.client.agent.service.maintenance(self._identity(name), enable)

    def maintain_node(self, *, is_on: bool = True) -> None:
        assert self.client.agent.maintenance("true" if is_on else "false")

    def clean_up(self) -> None:
        with suppress(py_consul.ConsulException, OSError):
            self.client.agent.maintenance("false")
            for identity in self._registered:
                self.client.agent.service.deregister(identity)

    def _identity(self, name: str) -> str:
        return f"{self.service}-{name}"


class Waiting(Calling[bool]):
    """A provider's `wait_for_change` under way."""

    def __init__(self, provider: ConsulProvider, timeout: float) -> None:
        super().__init__(lambda: provider.wait_for_change(timeout))


class MakeProvider:
    """Makes providers for a service, and closes them in the end."""

    def __init__(self, url: str, service: str, environment: Mapping[str, str], base: Path) -> None:
        self._defaults = {"url": url, "service": service}
        self._environment, self._base = environment, base
        self.made: list[ConsulProvider] = []

    def __call__(
        self, *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> ConsulProvider:
        provider = ConsulProvider(
            ConsulOptions.model_validate(self._defaults | options),
            ProviderContext("web", self._base),
            environment=self._environment if environment is None else environment,
        )
        self.made.append(provider)
        return provider


def _agent(kind: str) -> Iterator[Agent]:
    if kind == "real":
        url = REAL_AGENT if "//" in REAL_AGENT else f"http://{REAL_AGENT}"
        agent = Agent(url, os.environ)
        yield agent
        agent.clean_up()
        return
    fake = FakeConsul()
    fake.start()
    yield Agent(fake.url, {})
    fake.stop()


@pytest.fixture(params=["fake", "real"] if REAL_AGENT else ["fake"])
def consul(request: pytest.FixtureRequest) -> Iterator[Agent]:
    """An agent that knows nothing of the service `consul.service` yet."""
    yield from _agent(request.param)


@pytest.fixture
def make(consul: Agent, tmp_path: Path) -> Iterator[MakeProvider]:
    """Make providers for `consul.service`."""
    make = MakeProvider(consul.url, consul.service, consul.environment, tmp_path)
    yield make
    for provider in make.made:
        provider.close()


@pytest.fixture
def fake() -> Iterator[FakeConsul]:
    """A fake agent, with two instances of `web`."""
    fake = FakeConsul()
    fake.start()
    for number in (1, 2):
        fake.register(
            {"Name": "web", "ID": f"web-{number}", "Address": f"10.0.0.{number}", "Port": 80}
        )
    yield fake
    fake.stop()


@pytest.fixture
def make_for_fake(fake: FakeConsul, tmp_path: Path) -> Iterator[MakeProvider]:
    """Make providers for `web` of the fake agent."""
    make = MakeProvider(fake.url, "web", {}, tmp_path)
    yield make
    for provider in make.made:
        provider.close()


Gather = Callable[[ConsulProvider, Callable[[list[Backend]], object]], list[Backend]]


@pytest.fixture
def gather_until() -> Gather:
    """Ask until the answer fulfils a condition: a real agent tells its servers a little later."""

    def gather_until(
        provider: ConsulProvider, condition: Callable[[list[Backend]], object]
    ) -> list[Backend]:
        answers: list[list[Backend]] = []

        def is_so() -> object:
            answers.append(sorted(provider.gather_backends(), key=lambda each: each.endpoint))
            return condition(answers[-1])

        until(is_so)
        return answers[-1]

    return gather_until
