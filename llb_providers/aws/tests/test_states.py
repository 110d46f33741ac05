"""What is done in which state: the rules alone."""

from __future__ import annotations

import itertools

import pytest
from llb_provider_aws.options import States
from llb_provider_aws.states import STOPPED, Treatment, make_backend, of_target, one_each

from llb_core import Backend
from llb_providers.aws.tests.answers import backend


@pytest.mark.parametrize("treatment", [*Treatment])
@pytest.mark.parametrize("name", [*States.model_fields])
def test_every_state_can_be_configured(name: str, treatment: Treatment) -> None:
    configured = States.model_validate({name: treatment}).by_state()

    assert of_target(name.replace("_", "."), "", configured) is treatment


@pytest.mark.parametrize("treatment", [*Treatment])
def test_a_stopped_target_is_never_a_backend(treatment: Treatment) -> None:
    assert of_target("unused", STOPPED, {"unused": treatment}) is Treatment.OMIT


BEST_FIRST = [
    make_backend(backend("10.0.0.1").endpoint, treatment, treatment)
    for treatment in (Treatment.HEALTHY, Treatment.CHECK, Treatment.DRAIN, Treatment.UNHEALTHY)
]


@pytest.mark.parametrize(("better", "worse"), [*itertools.combinations(BEST_FIRST, 2)])
def test_of_one_endpoint_the_better_counts(better: Backend, worse: Backend) -> None:
    assert one_each([better, worse]) == one_each([worse, better]) == [better]


def test_endpoints_that_differ_all_stay() -> None:
    backends = [backend("10.0.0.1", 80), backend("10.0.0.1", 81), backend("10.0.0.2", 80)]

    assert one_each(backends) == backends
