"""The ACL token: where it comes from, that it is sent, and that it is shown nowhere."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from llb_provider_consul import ConsulOptions, ConsulProvider

from llb_core import ProviderContext, ProviderError
from llb_core.testing import Calling, until
from llb_providers.consul.tests.conftest import MakeProvider, Waiting
from llb_providers.consul.tests.fake_consul import FakeConsul, Handler
from llb_providers.consul.tests.faults import says

SECRET = "9b4d1c7e-5a0f-4c55-8f0e-3f6f1f5c2a77"
OTHER = "0d0e8a9c-77aa-4be1-9be0-c3a5ab1ddc11"


def sent_token(fake: FakeConsul) -> str | None:
    return fake.health_requests()[-1].headers.get("X-Consul-Token")


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ({}, {}, None),
        ({}, {"CONSUL_HTTP_TOKEN": OTHER}, OTHER),
        ({}, {"CONSUL_HTTP_TOKEN": ""}, None),
        ({"token": SECRET}, {"CONSUL_HTTP_TOKEN": OTHER}, SECRET),
        ({"token_file": "token"}, {"CONSUL_HTTP_TOKEN": OTHER}, SECRET),
        ({"token_env": "WEB_TOKEN"}, {"CONSUL_HTTP_TOKEN": OTHER, "WEB_TOKEN": SECRET}, SECRET),
    ],
    ids=["none", "variable", "empty variable", "configuration", "file", "named variable"],
)
def test_the_token_that_is_meant_is_sent(
    fake: FakeConsul,
    make_for_fake: MakeProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    environment: dict[str, str],
    expected: str | None,
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "what-py-consul-would-prefer")
    (tmp_path / "token").write_text(SECRET + "\n")

    make_for_fake(environment=environment, **options).gather_backends()

    assert sent_token(fake) == expected


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_a_token_file_that_is_no_regular_file_is_refused_at_once(
    fake: FakeConsul, make_for_fake: MakeProvider, tmp_path: Path, kind: str
) -> None:
    if kind == "a pipe":
        os.mkfifo(tmp_path / "token")
    else:
        (tmp_path / "token").symlink_to("/dev/zero")
    asking = Calling(make_for_fake(token_file="token").gather_backends)

    with pytest.raises(ProviderError, match="token_file token: is not a regular file: name one"):
        asking.result(limit=30)

    assert not fake.health_requests()


def test_a_token_replaced_in_its_file_is_sent_from_the_next_query_on(
    fake: FakeConsul, make_for_fake: MakeProvider, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    provider = make_for_fake(token_file="token")
    provider.gather_backends()

    file.write_text(OTHER)
    waiting = Waiting(provider, 60)
    until(lambda: len(fake.health_requests()) == 2)
    provider.close()

    waiting.result()
    assert sent_token(fake) == OTHER


@pytest.mark.parametrize(
    ("options", "content", "sentence"),
    [
        ({"token_file": "token"}, None, "token_file token: No such file or directory"),
        ({"token_file": "token"}, b"\n", "token_file token: holds no ACL token"),
        ({"token_file": "token"}, b"two\nlines", "token_file token: holds what can't be an ACL"),
        ({"token_file": "token"}, b"\xff\xfe", "token_file token: is not text"),
        ({"token_file": "token"}, b"a" * 20_000, "token_file token: is far longer than an ACL"),
        ({"token_env": "WEB_TOKEN"}, None, "token_env WEB_TOKEN: holds no ACL token"),
        ({"token": ""}, None, "token: holds no ACL token"),
        ({"token": f"{SECRET}\r\nX: y"}, None, r"token: holds what can't be an ACL token \(not"),
    ],
    ids=[
        "no file",
        "empty",
        "two lines",
        "bytes",
        "too long",
        "no variable",
        "none",
        "a header more",
    ],
)
def test_a_token_that_can_not_be_had_is_an_error_and_nothing_is_asked(
    fake: FakeConsul,
    make_for_fake: MakeProvider,
    tmp_path: Path,
    options: dict[str, Any],
    content: bytes | None,
    sentence: str,
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    with pytest.raises(ProviderError, match=sentence) as caught:
        make_for_fake(**options).gather_backends()

    assert SECRET not in str(caught.value)
    assert not fake.health_requests()


def test_a_token_that_may_read_gets_the_instances(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.tokens = {SECRET: {"web"}}

    assert len(make_for_fake(token=SECRET).gather_backends()) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"token": SECRET}, "Consul does not know the ACL token"),
        ({"token": OTHER}, r'it takes the rules service "web" \{ policy = "read" \}'),
        ({}, "no ACL token was sent and Consul's default policy is deny"),
    ],
    ids=["unknown", "may not read", "none"],
)
def test_whoever_may_not_read_gets_an_error_not_an_empty_answer(
    fake: FakeConsul, make_for_fake: MakeProvider, options: dict[str, Any], sentence: str
) -> None:
    fake.tokens = {OTHER: {"another"}}

    with pytest.raises(ProviderError, match=sentence):
        make_for_fake(**options).gather_backends()


def test_an_empty_answer_to_nobody_counts_if_told_so(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.tokens = {}

    assert list(make_for_fake(anonymous=True).gather_backends()) == []


def test_an_empty_answer_to_a_token_that_may_read_counts(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.tokens = {SECRET: {"nothing-there"}}

    assert list(make_for_fake(token=SECRET, service="nothing-there").gather_backends()) == []


def echoes_headers(handler: Handler) -> None:
    handler.answer(500, f"I was sent: {dict(handler.headers.items())}")


def test_the_token_is_shown_nowhere(
    fake: FakeConsul, make_for_fake: MakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    # Another provider in this process may have hushed it.
    caplog.set_level(logging.DEBUG, logger="urllib3")
    caplog.set_level(logging.DEBUG, logger="urllib3.connectionpool")
    provider = make_for_fake(token=SECRET)
    provider.gather_backends()
    fake.fault = echoes_headers
    with pytest.raises(ProviderError, match="I was sent") as caught:
        provider.gather_backends()
    fake.fault = says(302, "", headers={"Location": "http://127.0.0.1:9/"})
    with pytest.raises(ProviderError, match="302"):
        provider.gather_backends()

    shown = [
        *(record.getMessage() for record in caplog.records),
        repr(caught.value),
        repr(caught.value.__cause__),
        repr(provider),
        repr(provider.options),
        str(provider.options.model_dump()),
        provider.options.model_dump_json(),
        *(str(request.params) for request in fake.health_requests()),
    ]
    assert any("GET /v1/health/service/web" in each for each in shown)
    assert not [each for each in shown if SECRET in each]


def test_not_even_a_part_of_the_token_is_left_where_an_error_is_cut(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    provider = make_for_fake(token=SECRET)
    for length in range(120, 220, 4):
        fake.fault = says(500, f"{'x' * length} {SECRET}")
        with pytest.raises(ProviderError) as caught:
            provider.gather_backends()
        assert SECRET[:4] not in str(caught.value)


def test_a_token_that_stands_in_an_instance_is_not_shown(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.fault = says(200, [{"Service": {"ID": SECRET, "Address": SECRET, "Port": 80}}])

    with pytest.raises(ProviderError, match="the token") as caught:
        make_for_fake(token=SECRET).gather_backends()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("empty", ["[]", "[ ]", " [\n]\n", f"[{' ' * 2_000}]"])
def test_nothing_at_all_is_no_answer_however_it_is_written(
    fake: FakeConsul, make_for_fake: MakeProvider, empty: str
) -> None:
    fake.fault = says(200, empty, headers={"X-Consul-Default-Acl-Policy": "deny"})

    with pytest.raises(ProviderError, match="no ACL token was sent"):
        make_for_fake().gather_backends()


def test_an_answer_of_too_many_values_is_refused_before_it_is_read(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.fault = says(200, "[{}" + ",{}" * 2_500_001 + "]")

    with pytest.raises(ProviderError, match="more than 2,500,000 values: ask for fewer"):
        make_for_fake().gather_backends()


def test_the_token_is_not_carried_to_another_agent(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    other = FakeConsul()
    other.start()
    fake.fault = says(307, "", headers={"Location": f"{other.url}/v1/health/service/web"})
    asking = Calling(make_for_fake(token=SECRET).gather_backends)

    with pytest.raises(ProviderError):
        asking.result()
    assert not other.requests
    other.stop()


def test_a_token_in_the_configuration_is_not_in_its_errors(tmp_path: Path) -> None:
    options = ConsulOptions.model_validate({"service": "web", "token": SECRET})

    provider = ConsulProvider(options, ProviderContext("web", tmp_path), environment={})

    assert SECRET not in repr(vars(provider))
    provider.close()
