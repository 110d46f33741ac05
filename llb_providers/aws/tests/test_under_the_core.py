"""The provider as the core runs it: never answered, failing now, and empty are three things."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from llb_provider_aws import AwsProvider

from llb_core import NotReady
from llb_core.source import Source
from llb_core.testing import until
from llb_providers.aws.tests.answers import backend
from llb_providers.aws.tests.cloud import Cloud
from llb_providers.aws.tests.conftest import MakeProvider
from llb_providers.aws.tests.front import Front, error, hang

Start = Callable[[Callable[[], AwsProvider]], Source]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a source; it is closed afterwards."""
    sources: list[Source] = []

    def start(make: Callable[[], AwsProvider]) -> Source:
        sources.append(Source("web", "aws", make))
        sources[-1].start()
        return sources[-1]

    yield start
    for source in sources:
        source.close()


@pytest.fixture
def web(cloud: Cloud) -> str:
    """A target group of one address."""
    group = cloud.target_group(kind="ip")
    cloud.register(group, "10.0.1.1")
    return group


def test_one_that_never_answered_is_not_empty(
    web: str, make: MakeProvider, front: Front, start: Start
) -> None:
    with front.fault("DescribeTargetHealth", error("AccessDenied", status=403)):
        source = start(lambda: make(target_group="web"))
        until(lambda: "DescribeTargetHealth" in source.error, limit=15)

        with pytest.raises(NotReady, match="no policy allows elasticloadbalancing:DescribeTarget"):
            source.gather_backends()


def test_one_that_fails_now_keeps_its_last_answer_and_mends(
    web: str, cloud: Cloud, make: MakeProvider, front: Front, start: Start
) -> None:
    source = start(lambda: make(target_group="web", refresh=1, read_timeout="300ms"))
    until(lambda: source.is_ready, limit=15)

    with front.fault("DescribeTargetHealth", hang):
        until(lambda: "no answer in time" in source.error, limit=15)
        assert source.is_stale
        assert source.gather_backends() == (backend("10.0.1.1", healthy=True),)
        cloud.register(web, "10.0.1.2")

    until(lambda: len(source.gather_backends()) == 2, limit=15)
    assert not source.is_stale


def test_one_that_says_none_has_none(
    web: str, cloud: Cloud, make: MakeProvider, start: Start
) -> None:
    source = start(lambda: make(target_group="web", refresh=1))
    until(lambda: source.is_ready, limit=15)

    cloud.elb.deregister_targets(TargetGroupArn=web, Targets=[{"Id": "10.0.1.1"}])

    until(lambda: not source.gather_backends(), limit=15)
    assert not source.error


def test_a_source_closes_at_once_while_aws_hangs(
    web: str, make: MakeProvider, front: Front, start: Start
) -> None:
    with front.fault("DescribeTargetGroups", hang):
        source = start(lambda: make(target_group="web", read_timeout="60s"))
        until(lambda: front.count("DescribeTargetGroups"), limit=15)

        source.close(timeout=0.1)

    with pytest.raises(NotReady):
        source.gather_backends()
