"""What the tests run against: moto's server over HTTP, and between it and boto3 a front that
brings faults. Nothing of the host's own AWS configuration is seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from llb_provider_aws import AwsOptions, AwsProvider
from moto.server import ThreadedMotoServer

from llb_core import ProviderContext
from llb_providers.aws.tests.cloud import REGION, Cloud
from llb_providers.aws.tests.front import Front

MakeProvider = Callable[..., AwsProvider]

KEY = "AKIATESTTESTTESTTEST"
SECRET = "sEcReTsEcReTsEcReTsEcReTsEcReTsEcReT0123"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the host's configuration out, and have some credentials."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of a moto server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture(scope="session")
def account(moto_url: str) -> Cloud:
    """The account that every test begins anew."""
    session = boto3.Session("test", "test", region_name=REGION)
    return Cloud(moto_url, lambda service: session.client(service, endpoint_url=moto_url))


@pytest.fixture
def cloud(account: Cloud) -> Cloud:
    """An AWS in which there is nothing yet."""
    account.reset()
    return account


@pytest.fixture
def front(moto_url: str) -> Iterator[Front]:
    """The server in front of it."""
    front = Front(moto_url)
    yield front
    front.close()


@pytest.fixture
def make(front: Front, tmp_path: Path) -> Iterator[MakeProvider]:
    """Make a provider that asks the front; without patience, unless a test brings some."""
    made: list[AwsProvider] = []

    def make(arguments: dict[str, Any] | None = None, /, **options: Any) -> AwsProvider:
        document = {"region": REGION, "endpoint_url": front.url, "max_attempts": 1} | options
        known = {key: value for key, value in document.items() if value is not None}
        context = ProviderContext("web", tmp_path)
        provider = AwsProvider(AwsOptions.model_validate(known), context, **(arguments or {}))
        made.append(provider)
        return provider

    yield make
    for provider in made:
        provider.close()
