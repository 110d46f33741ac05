"""The least policy of the README is what each way to find backends calls: no less, and no more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llb_providers.aws.tests.cloud import Cloud
from llb_providers.aws.tests.conftest import MakeProvider
from llb_providers.aws.tests.front import Front

README = (Path(__file__).parents[1] / "README.md").read_text()
ACTION = re.compile(r"`([a-z0-9]+:[A-Z]\w+)`")


def documented(way: str) -> set[str]:
    """Return the actions of a row of the README's table."""
    (row,) = re.findall(rf"^\| {way} \| (.*) \|$", README, re.MULTILINE)
    above = (
        documented("target group of the kind `ip`") if row.startswith("the same, and") else set()
    )
    return above | set(ACTION.findall(row))


def called(front: Front) -> set[str]:
    """Return what has been called, without the part of AWS that it is of."""
    return {call.action for call in front.calls}


@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("target group of the kind `ip`", {"target_group": "addresses"}),
        ("target group of the kind `instance`", {"target_group": "instances"}),
        ("Auto Scaling group", {"auto_scaling_group": "web", "port": 80}),
        ("tags", {"tags": {"Role": "web"}, "port": 80}),
    ],
    ids=["ip", "instance", "scaling", "tags"],
)
def test_calls_what_the_least_policy_allows_and_nothing_else(
    cloud: Cloud, make: MakeProvider, front: Front, way: str, options: dict[str, Any]
) -> None:
    ((instance, _),) = cloud.run(1, tags={"Role": "web"}).items()
    cloud.register(cloud.target_group("instances"), instance)
    cloud.register(cloud.target_group("addresses", kind="ip"), "10.0.1.1")
    cloud.scaling_group()

    assert make(**options).gather_backends()

    assert called(front) == {action.partition(":")[2] for action in documented(way)}


def test_the_policy_is_that_of_a_target_group_of_instances() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    (statement,) = json.loads(text)["Statement"]
    assert set(statement["Action"]) == documented("target group of the kind `instance`")
