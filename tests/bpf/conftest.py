"""What the tests of the classifier share: the real program on real maps in a namespace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf.harness.namespace import Namespace
from tests.bpf.harness.rig import Rig, remove_leftovers

pytest.register_assert_rewrite("tests.bpf.agreement")

CAPACITY = 4096
SMALL_CAPACITY = 4


@pytest.fixture(scope="session")
def namespace() -> Iterator[Namespace]:
    """The network namespace that the programs run in."""
    made = Namespace()
    yield made
    made.close()


@pytest.fixture(scope="session")
def _loaded(namespace: Namespace) -> Iterator[Rig]:
    yield from _load(namespace, CAPACITY)


@pytest.fixture(scope="session")
def _loaded_small(namespace: Namespace) -> Iterator[Rig]:
    yield from _load(namespace, SMALL_CAPACITY)


@pytest.fixture
def rig(namespace: Namespace, _loaded: Rig) -> Iterator[Rig]:
    """The classifier without connections; the test runs inside the namespace."""
    with namespace.entered():
        _loaded.reset()
        yield _loaded


@pytest.fixture
def small_rig(namespace: Namespace, _loaded_small: Rig) -> Iterator[Rig]:
    """The same with room for few connections."""
    with namespace.entered():
        _loaded_small.reset()
        yield _loaded_small


def _load(namespace: Namespace, max_connections: int) -> Iterator[Rig]:
    remove_leftovers()
    with namespace.entered():
        rig = Rig(max_connections)
    try:
        yield rig
    finally:
        with namespace.entered():
            rig.close()
