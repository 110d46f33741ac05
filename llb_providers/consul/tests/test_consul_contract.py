"""The contract of a provider, held against the provider `consul`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from llb_provider_consul import ConsulProvider

from llb_core import Backend
from llb_core.testing import ProviderContract
from llb_providers.consul.tests.fake_consul import FakeConsul
from llb_providers.consul.tests.faults import says


class TestConsul(ProviderContract):
    provider = ConsulProvider
    options: Mapping[str, Any] = {"service": "web"}
    secrets: Mapping[str, str] = {"token": "7f9d2c1e-0b0a-4a57-8a11-6f0e2a1f9b3c"}

    @pytest.fixture(autouse=True)
    def _consul(self) -> Iterator[None]:
        self.fake = FakeConsul()
        self.fake.start()
        self.options = {"service": "web", "url": self.fake.url}
        yield
        self.fake.stop()

    def say(self, backends: Sequence[Backend]) -> None:
        wanted = {str(backend.endpoint): backend.endpoint for backend in backends}
        self.fake.fault = None
        for gone in self.fake.identities() - wanted.keys():
            self.fake.deregister(gone)
        for identity in wanted.keys() - self.fake.identities():
            address, port = str(wanted[identity].address), wanted[identity].port
            self.fake.register({"Name": "web", "ID": identity, "Address": address, "Port": port})

    def fail(self) -> None:
        self.fake.fault = says(500, "No cluster leader")
        self.fake.touch("web")
