"""What the tests of real traffic share: a network that is gone afterwards, and a lab in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network


@pytest.fixture
def network() -> Iterator[Network]:
    """Namespaces of the test's own."""
    with Network() as made:
        lab.forget_leftovers()
        yield made
