"""Who asks AWS, and where: boto3's own ways, roles, credentials that expire; and that nothing of
them is ever told."""

from __future__ import annotations

import logging
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from llb_provider_aws.connection import Access, Connection, connect

from llb_core import ProviderError
from llb_providers.aws.tests.cloud import REGION, Cloud
from llb_providers.aws.tests.conftest import KEY, SECRET, MakeProvider
from llb_providers.aws.tests.front import Call, Fault, Front, Moto, Reply, body, error, rewrite

ROLE = "arn:aws:iam::123456789012:role/llb"
OTHER_KEY = "AKIAOTHEROTHEROTHERO"
TOKEN = "tOkEn/" * 20

MISSING_ROLE = "access denied: no policy allows sts:AssumeRole"


@pytest.fixture(autouse=True)
def web(cloud: Cloud) -> None:
    """A target group of one address."""
    cloud.register(cloud.target_group(kind="ip"), "10.0.1.1")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """AWS's configuration file."""
    return tmp_path / "aws-config"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """AWS's file of credentials."""
    return tmp_path / "aws-credentials"


def write_keys(path: Path, key: str, profile: str = "default") -> None:
    path.write_text(f"[{profile}]\naws_access_key_id={key}\naws_secret_access_key={SECRET}\n")


def test_the_environment_is_used(make: MakeProvider, front: Front) -> None:
    make(target_group="web").gather_backends()

    assert {(call.key, call.region) for call in front.calls} == {(KEY, REGION)}


def test_a_profile_brings_keys_and_region(
    make: MakeProvider, front: Front, config: Path, credentials: Path
) -> None:
    write_keys(credentials, OTHER_KEY, "other")
    config.write_text(f"[profile other]\nregion = {REGION}\n")

    make(target_group="web", region=None, profile="other").gather_backends()

    assert {(call.key, call.region) for call in front.calls} == {(OTHER_KEY, REGION)}


def test_a_role_is_assumed(make: MakeProvider, front: Front) -> None:
    provider = make(target_group="web", role_arn=ROLE, external_id="us", role_session_name="me")

    assert len(provider.gather_backends()) == 1

    (assumed,) = front.named("AssumeRole")
    others = [call for call in front.calls if call is not assumed]
    assert assumed.key == KEY
    assert assumed.parameters["RoleArn"] == ROLE
    assert assumed.parameters["ExternalId"] == "us"
    assert assumed.parameters["RoleSessionName"] == "me"
    assert all(call.key != KEY and call.token for call in others)


def test_a_role_is_assumed_again_before_it_expires(make: MakeProvider, front: Front) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    short = rewrite("<Expiration>.*?</Expiration>", f"<Expiration>{soon}</Expiration>")
    provider = make(target_group="web", role_arn=ROLE)

    with front.fault("AssumeRole", short):
        provider.gather_backends()
        before = front.count("AssumeRole")
        provider.gather_backends()

    assert front.count("AssumeRole") > before


def test_a_role_that_may_not_be_assumed_names_the_permission(
    make: MakeProvider, front: Front
) -> None:
    provider = make(target_group="web", role_arn=ROLE)

    with (
        front.fault("AssumeRole", error("AccessDenied", "User is not authorized", 403)),
        pytest.raises(ProviderError, match=MISSING_ROLE),
    ):
        provider.gather_backends()


def test_a_role_of_a_profile_and_an_endpoint_of_the_environment(
    make: MakeProvider,
    front: Front,
    config: Path,
    credentials: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_keys(credentials, OTHER_KEY, "base")
    config.write_text(f"[profile web]\nrole_arn = {ROLE}\nsource_profile = base\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)

    make(target_group="web", profile="web", endpoint_url=None).gather_backends()

    (assumed,) = front.named("AssumeRole")
    assert (assumed.key, assumed.parameters["RoleArn"]) == (OTHER_KEY, ROLE)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"region": None}, "AWS: .* no region is set: write region, or set AWS_DEFAULT_REGION"),
        ({"profile": "nobody"}, f"AWS {REGION}: .* the profile is in none of"),
    ],
)
def test_what_is_not_set_is_named(
    make: MakeProvider, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ProviderError, match=sentence):
        make(target_group="web", **options).gather_backends()


def test_the_region_is_that_of_the_environment(
    make: MakeProvider, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)

    make(target_group="web", region=None).gather_backends()

    assert {call.region for call in front.calls} == {REGION}


@pytest.mark.parametrize("role", [None, ROLE])
def test_no_credentials_at_all(
    make: MakeProvider, monkeypatch: pytest.MonkeyPatch, role: str | None
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(ProviderError, match="there are no credentials in the environment"):
        make(target_group="web", role_arn=role).gather_backends()


def test_keys_that_are_renewed_in_a_file_are_found(
    make: MakeProvider, front: Front, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    now = 0.0
    provider = make(
        {"connect": lambda access: Connection(access, clock=lambda: now)}, target_group="web"
    )
    write_keys(credentials, KEY)
    provider.gather_backends()

    def expired(call: Call, moto: Moto) -> Reply | None:
        refused = error("ExpiredToken", "it has expired", 403)
        return refused(call, moto) if call.key == KEY else moto(call.body)

    with front.fault("DescribeTargetHealth", expired):
        now = 6.0
        with pytest.raises(ProviderError, match="expired"):
            provider.gather_backends()
        write_keys(credentials, OTHER_KEY)

        assert len(provider.gather_backends()) == 1


def test_a_session_is_not_made_anew_with_every_refusal(make: MakeProvider, front: Front) -> None:
    connections: list[Connection] = []

    def begin(access: Access) -> Connection:
        connections.append(Connection(access, clock=lambda: 0.0))
        return connections[-1]

    provider = make({"connect": begin}, target_group="web")
    provider.gather_backends()
    session = connections[0]._session

    with (
        front.fault("DescribeTargetHealth", error("AccessDenied", status=403)),
        pytest.raises(ProviderError),
    ):
        provider.gather_backends()

    assert connections[0]._session is session


def test_equal_access_is_one_connection_as_long_as_it_is_held() -> None:
    first = connect(Access(region=REGION))

    assert connect(Access(region=REGION)) is first
    assert connect(Access(region=REGION, profile="other")) is not first


SIGNED = f"the Canonical String should have been 'POST host:x x-amz-security-token:{TOKEN}'"


@pytest.mark.parametrize(
    "fault",
    [
        error("SignatureDoesNotMatch", SIGNED, 403),
        error("InvalidClientTokenId", f"{KEY} {SECRET} {TOKEN}", 403),
        error("AccessDenied", f"{KEY} {SECRET} {TOKEN} is not authorized", 403),
        error("SomethingNew", f"{KEY} {SECRET} {TOKEN}"),
        error(f"{SECRET}", f"{SIGNED}", 500),
        body(f"<garbage>{KEY} {SECRET} {TOKEN}".encode()),
        body(f"{KEY} {SECRET} {TOKEN}".encode(), 500),
    ],
)
def test_no_credentials_are_told(
    make: MakeProvider,
    front: Front,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    provider = make(target_group="web", role_arn=ROLE, external_id=SECRET)

    for action in ("AssumeRole", "DescribeTargetHealth"):
        with front.fault(action, fault), pytest.raises(ProviderError) as caught:
            provider.gather_backends()
        told = f"{caught.value} {caught.value!r} {caught.getrepr(showlocals=False)}"
        assert_untold(told)
    provider.gather_backends()

    assert_untold(caplog.text)
    assert_untold(repr([provider, provider.options, vars(provider)]))


def test_what_a_credential_process_prints_is_not_told(
    make: MakeProvider, config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    process = tmp_path / "process"
    process.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('{KEY} {SECRET} {TOKEN}')\n")
    process.chmod(stat.S_IRWXU)
    config.write_text(f"[profile odd]\ncredential_process = {process}\n")

    with pytest.raises(ProviderError, match="the credentials could not be retrieved") as caught:
        make(target_group="web", profile="odd").gather_backends()

    assert_untold(f"{caught.value} {caplog.text}")


def assert_untold(text: str) -> None:
    for secret in (SECRET, TOKEN, KEY):
        assert secret not in text
