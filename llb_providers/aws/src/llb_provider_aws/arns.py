"""Read Amazon resource names and what else is told by its shape. Pure."""

from __future__ import annotations

import re

_TARGET_GROUP = re.compile(
    r"arn:aws[a-z-]*:elasticloadbalancing:(?P<region>[a-z0-9-]+):\d{12}"
    r":targetgroup/(?P<name>[A-Za-z0-9-]{1,32})/[0-9a-f]+"
)
_TARGET_GROUP_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_REGION = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-\d+")


def is_arn(text: str) -> bool:
    """Say whether a text is meant to be an ARN, right or wrong."""
    return text.startswith("arn:")


def is_target_group_arn(text: str) -> bool:
    """Say whether this is the ARN of a target group."""
    return _TARGET_GROUP.fullmatch(text) is not None


def is_target_group_name(text: str) -> bool:
    """Say whether a target group may be called this."""
    return _TARGET_GROUP_NAME.fullmatch(text) is not None


def is_role_arn(text: str) -> bool:
    """Say whether this is the ARN of an IAM role."""
    return _ROLE.fullmatch(text) is not None


def is_region(text: str) -> bool:
    """Say whether this looks like a region: `eu-central-1`, and not `eu-central-1a`, a zone."""
    return _REGION.fullmatch(text) is not None


def region_of(target_group: str) -> str | None:
    """Return the region that the ARN of a target group names; None for a name."""
    match = _TARGET_GROUP.fullmatch(target_group)
    return match["region"] if match else None
