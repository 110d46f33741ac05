"""The contract of a provider, held against the provider `aws`, by target group and by tags."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from llb_provider_aws import AwsProvider

from llb_core import Backend
from llb_core.testing import ProviderContract
from llb_providers.aws.tests.cloud import REGION, Cloud
from llb_providers.aws.tests.front import Front, error, well


class AwsContract(ProviderContract):
    """What both have in common."""

    provider = AwsProvider
    limit = 15.0

    @pytest.fixture(autouse=True)
    def _aws(self, cloud: Cloud, front: Front) -> None:
        self.cloud, self.front = cloud, front
        self.options = {"region": REGION, "endpoint_url": front.url, "max_attempts": 1}

    def fail(self) -> None:
        self.front.every_fault = error("InternalFailure", status=500)


class TestByTargetGroup(AwsContract):
    @pytest.fixture(autouse=True)
    def _group(self, _aws: None) -> None:
        self.group = self.cloud.target_group(kind="ip")
        self.options = {**self.options, "target_group": "web"}

    def say(self, backends: Sequence[Backend]) -> None:
        self.front.every_fault = well
        self.cloud.empty(self.group)
        for backend in backends:
            self.cloud.register(
                self.group, str(backend.endpoint.address), port=backend.endpoint.port
            )


class TestByTags(AwsContract):
    @pytest.fixture(autouse=True)
    def _tags(self, _aws: None) -> None:
        (port,) = {backend.endpoint.port for backend in self.backends}
        self.options = {**self.options, "tags": {"Role": "web"}, "port": port}

    def say(self, backends: Sequence[Backend]) -> None:
        self.front.every_fault = well
        self.cloud.tag_only((str(each.endpoint.address) for each in backends), "Role", "web")
