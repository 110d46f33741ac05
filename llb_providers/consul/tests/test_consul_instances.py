"""Which of two registrations of one address and port counts."""

from __future__ import annotations

from itertools import permutations

import pytest
from llb_provider_consul import ConsulOptions
from llb_provider_consul.instances import to_backends


def named(status: str, weight: int, changed: int, identity: str) -> dict[str, object]:
    weights = {"Passing": weight, "Warning": weight}
    service = {"ID": identity, "Address": "10.0.0.1", "Port": 80, "Weights": weights}
    return {
        "Node": {"Node": "n"},
        "Service": service | {"ModifyIndex": changed},
        "Checks": [{"CheckID": "c", "Status": status}],
    }


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [
        (("passing", 1, 7), ("passing", 5, 9), 5),
        (("passing", 5, 7), ("passing", 1, 9), 1),
        (("passing", 5, 0), ("passing", 1, 0), 5),
        (("warning", 5, 9), ("passing", 1, 7), 1),
        (("critical", 5, 9), ("warning", 1, 7), 1),
    ],
)
def test_of_two_registrations_the_better_and_then_the_later_counts(
    first: tuple[str, int, int], second: tuple[str, int, int], weight: int
) -> None:
    options = ConsulOptions.model_validate({"service": "web"})
    pair = [named(*first, "one"), named(*second, "two")]
    for answer in (pair, pair[::-1]):
        understood = to_backends(answer, options)
        assert [each.weight for each in understood.backends] == [weight]
        assert len(understood.doubled) == 1


def test_of_three_the_same_one_counts_in_whatever_order_they_come() -> None:
    options = ConsulOptions.model_validate({"service": "web"})
    three = [
        named("passing", 1, 5, "one"),
        named("passing", 1, 9, "two"),
        named("passing", 2, 7, "three"),
    ]
    for answer in permutations(three):
        understood = to_backends(list(answer), options)
        assert [each.weight for each in understood.backends] == [1]
        assert understood.doubled
