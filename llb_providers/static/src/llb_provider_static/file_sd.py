"""The shape of Prometheus' file_sd: a list of groups, each of targets and their labels. Pure.

Labels are others' words, and are left alone but for `llb_weight` and `llb_draining`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from llb_core import MAX_WEIGHT, Endpoint

_STATES = {"true": True, "false": False}


def _parse_target(value: object) -> Endpoint:
    """Return the endpoint of `"10.0.0.2:80"` or `"[2001:db8::1]:80"`."""
    if not isinstance(value, str):
        raise ValueError(f"{value!s:.60} is not a string")
    return Endpoint.parse(value)


def _parse_labels(value: object) -> tuple[int, bool]:
    """Return the weight of a group's targets, and whether they drain."""
    if value is None:  # As Go writes what was never made; Prometheus takes it for none, too.
        value = {}
    if not isinstance(value, dict):
        raise ValueError(f"{value!s:.60} is not a table")
    weight, draining = _word(value, "llb_weight", "1"), _word(value, "llb_draining", "false")
    is_number = weight.isascii() and weight.isdigit()
    if not (is_number and len(weight) <= 5 and int(weight) <= MAX_WEIGHT):
        raise ValueError(f'llb_weight: "{weight:.60}" is not a number from 0 to {MAX_WEIGHT}')
    if draining not in _STATES:
        raise ValueError(f'llb_draining: "{draining:.60}" is neither true nor false')
    return int(weight), _STATES[draining]


def _word(labels: dict[str, object], name: str, otherwise: str) -> str:
    word = labels.get(name, otherwise)
    if not isinstance(word, str):
        raise ValueError(
            f'{name}: is not a string, as labels are: write it in quotes, "{otherwise}"'
        )
    return word


class Group(BaseModel):
    """Targets that have their labels in common."""

    model_config = ConfigDict(extra="forbid")

    targets: list[Annotated[Any, BeforeValidator(_parse_target)]]
    labels: Annotated[Any, BeforeValidator(_parse_labels)] = Field((1, False))


class Groups(RootModel[list[Group]]):
    """The whole file."""


def backends_of(groups: Groups) -> Iterator[tuple[str, Endpoint, int, bool]]:
    """Yield for each backend its place in the file, its endpoint, its weight, and whether it
    drains."""
    for number, group in enumerate(groups.root):
        weight, draining = group.labels
        for place, endpoint in enumerate(group.targets):
            yield f"[{number}].targets[{place}]", endpoint, weight, draining
