"""Call `llb` as a shell does, in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.calling import Called, call

Llb = Callable[..., Called]


@pytest.fixture
def llb() -> Iterator[Llb]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield call
    # `llb run` sets up logs for its own process, on a standard error that ends with the test.
    root.handlers[:] = handlers
    root.setLevel(level)
