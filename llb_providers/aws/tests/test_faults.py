"""What goes wrong with AWS: each is an error that names the place and the remedy, is never taken
for "no backends", and ends when AWS is well again."""

from __future__ import annotations

import pytest

from llb_core import ProviderError
from llb_core.testing import until
from llb_providers.aws.tests.answers import backend
from llb_providers.aws.tests.cloud import REGION, Cloud
from llb_providers.aws.tests.conftest import MakeProvider
from llb_providers.aws.tests.front import (
    EMPTY,
    Fault,
    Front,
    body,
    cut,
    error,
    hang,
    rewrite,
    times,
)

WHO = "arn:aws:sts::123456789012:assumed-role/llb/i-0123"
HEALTH = "elasticloadbalancing:DescribeTargetHealth"
NOT_ALLOWED = f"User: {WHO} is not authorized to perform: something because no policy allows it"
ASKED = f"AWS {REGION}: DescribeTargetHealth of target group web"
GARBAGE = f"{ASKED}: what came is no answer of AWS"


@pytest.fixture
def web(cloud: Cloud) -> str:
    """A target group of one instance; returns its address."""
    ((instance, address),) = cloud.run(1, tags={"Role": "web"}).items()
    cloud.register(cloud.target_group(), instance)
    return address


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        pytest.param(
            error("ServiceUnavailable", "x", 503), "AWS says ServiceUnavailable: x", id="503"
        ),
        pytest.param(error("InternalFailure", "", 500), "AWS says InternalFailure$", id="500"),
        pytest.param(
            error("ValidationError", "bad value"), "AWS says ValidationError: bad value", id="400"
        ),
        pytest.param(
            body(b"<html>Bad Gateway</html>", 502), "AWS says 502: Bad Gateway$", id="a proxy's 502"
        ),
        pytest.param(body(b"", 504), "AWS says 504: Gateway Timeout$", id="504 without a word"),
        pytest.param(body(b"not XML at all"), GARBAGE, id="no XML"),
        pytest.param(body(b"\x00\xff" * 5000), GARBAGE, id="bytes"),
        pytest.param(body(b""), GARBAGE, id="nothing"),
        pytest.param(body(b"<html><body>log in</body></html>"), GARBAGE, id="a page"),
        pytest.param(body(b'{"TargetHealthDescriptions": []}'), GARBAGE, id="JSON"),
        pytest.param(body(EMPTY % b""), GARBAGE, id="an answer without a list"),
        pytest.param(
            body(EMPTY % b"<TargetHealthDescriptions><member/></TargetHealthDescriptions>"),
            GARBAGE,
            id="a target of nothing",
        ),
        pytest.param(
            rewrite("<Port>8080</Port>", "<Port>http</Port>"),
            rf'{GARBAGE} \(target i-\w+ has port "http", not one from 1 to 65535\)',
            id="a port of letters",
        ),
        pytest.param(
            rewrite("<Port>8080</Port>", ""),
            rf"{GARBAGE} \(target i-\w+ has no Port\)",
            id="no port",
        ),
        pytest.param(
            rewrite("<State>healthy</State>", ""),
            rf"{GARBAGE} \(target i-\w+ has no State\)",
            id="no state",
        ),
        pytest.param(cut, GARBAGE, id="cut off"),
    ],
)
def test_a_fault_is_an_error_and_ends(
    web: str, make: MakeProvider, front: Front, fault: Fault, sentence: str
) -> None:
    provider = make(target_group="web")

    with front.fault("DescribeTargetHealth", fault), pytest.raises(ProviderError, match=sentence):
        provider.gather_backends()

    assert provider.gather_backends() == [backend(web, healthy=True)]


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("<privateIpAddress>[^<]*<", "<privateIpAddress>10.0.0.777<"),
        ("<instanceId>[^<]*</instanceId>", ""),
        ("<instanceState>.*?</instanceState>", ""),
        ("(?s)<instancesSet>.*?</instancesSet>", ""),
        ("(?s)<reservationSet>.*</reservationSet>", ""),
    ],
    ids=["address", "no id", "no state", "no instances", "no reservations"],
)
def test_instances_that_are_garbage_are_an_error(
    web: str, make: MakeProvider, front: Front, pattern: str, replacement: str
) -> None:
    provider = make(tags={"Role": "web"}, port=80)

    with (
        front.fault("DescribeInstances", rewrite(pattern, replacement)),
        pytest.raises(ProviderError, match="DescribeInstances: what came is no answer of AWS"),
    ):
        provider.gather_backends()

    assert provider.gather_backends() == [backend(web, 80)]


@pytest.mark.parametrize(
    ("options", "action", "code", "permission"),
    [
        (
            {"target_group": "web"},
            "DescribeTargetGroups",
            "AccessDenied",
            "elasticloadbalancing:DescribeTargetGroups",
        ),
        ({"target_group": "web"}, "DescribeTargetHealth", "AccessDenied", HEALTH),
        (
            {"target_group": "web"},
            "DescribeInstances",
            "UnauthorizedOperation",
            "ec2:DescribeInstances",
        ),
        (
            {"tags": {"Role": "web"}, "port": 80},
            "DescribeInstances",
            "UnauthorizedOperation",
            "ec2:DescribeInstances",
        ),
        (
            {"auto_scaling_group": "web", "port": 80},
            "DescribeAutoScalingGroups",
            "AccessDenied",
            "autoscaling:DescribeAutoScalingGroups",
        ),
    ],
)
def test_a_missing_permission_is_named(
    web: str,
    make: MakeProvider,
    front: Front,
    options: dict[str, object],
    action: str,
    code: str,
    permission: str,
) -> None:
    provider = make(**options)

    with (
        front.fault(action, error(code, NOT_ALLOWED, 403)),
        pytest.raises(ProviderError) as caught,
    ):
        provider.gather_backends()

    assert (
        str(caught.value) == f"AWS {REGION}: access denied: no policy allows {permission} to {WHO}"
    )


def test_a_permission_that_is_forbidden_is_told_from_one_that_is_missing(
    web: str, make: MakeProvider, front: Front
) -> None:
    provider = make(target_group="web")
    told = f"User: {WHO} is not authorized with an explicit deny in a service control policy"

    with (
        front.fault("DescribeTargetHealth", error("AccessDenied", told, 403)),
        pytest.raises(ProviderError, match=f"a policy forbids {HEALTH} to {WHO} explicitly"),
    ):
        provider.gather_backends()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("ExpiredToken", r"the credentials have expired \(ExpiredToken\), or the clock is wrong"),
        ("RequestExpired", "the credentials have expired"),
        ("InvalidClientTokenId", r"the credentials are not valid here \(InvalidClientTokenId\)"),
        ("SignatureDoesNotMatch", "the credentials are not valid here"),
        ("AuthFailure", "the credentials are not valid here"),
    ],
)
def test_credentials_that_are_refused(
    web: str, make: MakeProvider, front: Front, code: str, sentence: str
) -> None:
    provider = make(target_group="web")

    with (
        front.fault("DescribeTargetHealth", error(code, status=403)),
        pytest.raises(ProviderError, match=f"^{ASKED}: {sentence}"),
    ):
        provider.gather_backends()


def test_throttling_is_waited_out(web: str, make: MakeProvider, front: Front) -> None:
    provider = make(target_group="web", max_attempts=3)
    throttled = times(2, error("Throttling", "Rate exceeded"))

    with front.fault("DescribeTargetHealth", throttled):
        assert provider.gather_backends() == [backend(web, healthy=True)]

    tries = front.named("DescribeTargetHealth")
    assert len(tries) == 3
    assert all("retry-mode#standard" in call.agent for call in tries)


@pytest.mark.parametrize("action", ["DescribeTargetHealth", "DescribeInstances"])
def test_throttling_that_lasts_is_an_error(
    web: str, make: MakeProvider, front: Front, action: str
) -> None:
    is_of_group = action == "DescribeTargetHealth"
    code = "Throttling" if is_of_group else "RequestLimitExceeded"
    asked = ASKED if is_of_group else f"AWS {REGION}: {action}"
    provider = make(target_group="web", max_attempts=2)

    with (
        front.fault(action, error(code, status=503)),
        pytest.raises(ProviderError, match=rf"{asked}: AWS throttles it \({code}\): raise refresh"),
    ):
        provider.gather_backends()

    assert front.count(action) == 2


def test_a_passing_fault_is_tried_again(web: str, make: MakeProvider, front: Front) -> None:
    provider = make(target_group="web", max_attempts=2)

    with front.fault("DescribeTargetHealth", times(1, error("InternalFailure", status=500))):
        assert provider.gather_backends() == [backend(web, healthy=True)]


@pytest.mark.parametrize("action", ["DescribeTargetGroups", "DescribeTargetHealth"])
def test_a_hang_is_an_error_and_ends(
    web: str, make: MakeProvider, front: Front, action: str
) -> None:
    provider = make(target_group="web", read_timeout="300ms")

    def said() -> object:
        try:
            return provider.gather_backends()
        except ProviderError as error:
            return str(error)

    # On a busy machine even a server that is well may take longer than so short a timeout.
    with front.fault(action, hang):
        late = "no answer in time: raise read_timeout where that lasts"
        told = f"AWS {REGION}: {action} of target group web: {late}"
        until(lambda: said() == told, limit=30)
    until(lambda: said() == [backend(web, healthy=True)], limit=30)


def test_nobody_there_is_an_error(make: MakeProvider) -> None:
    provider = make(target_group="web", endpoint_url="http://127.0.0.1:9")

    with pytest.raises(
        ProviderError, match="DescribeTargetGroups of target group web: can't be reached"
    ):
        provider.gather_backends()
