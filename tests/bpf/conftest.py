"""What the tests of the classifier share: the real program on real maps in a namespace.

A test that takes a rig runs for both address families, unless it says `@pytest.mark.family(4)`; one
that takes a `case` runs for each of the table of cases.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf.cases import CASES
from tests.bpf.harness.family import FAMILIES, using
from tests.bpf.harness.namespace import Namespace
from tests.bpf.harness.rig import Rig, remove_leftovers

pytest.register_assert_rewrite("tests.bpf.agreement")

CAPACITY = 4096
SMALL_CAPACITY = 4


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is about a family for each that it is about, and for each case of the table."""
    if "family" not in metafunc.fixturenames:
        return
    only = metafunc.definition.get_closest_marker("family")
    families = only.args if only else FAMILIES
    if "case" not in metafunc.fixturenames:
        metafunc.parametrize("family", families, ids=_name, indirect=True)
        return
    cases = [(family, case) for family in families for case in CASES[family]]
    metafunc.parametrize(
        ("family", "case"),
        cases,
        ids=[f"{_name(family)}-{case.name}" for family, case in cases],
        indirect=["family"],
    )


def _name(family: int) -> str:
    return f"ipv{family}"


class Rigs:
    """A rig for each family and capacity, made when the first test asks for it."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._made: dict[tuple[int, int], Rig] = {}
        remove_leftovers()

    def get(self, family: int, capacity: int) -> Rig:
        """Return one without connections; the caller is inside the namespace."""
        if (family, capacity) not in self._made:
            self._made[family, capacity] = Rig(capacity)
        rig = self._made[family, capacity]
        rig.reset()
        return rig

    def close(self) -> None:
        """Give everything back."""
        with self._namespace.entered():
            for rig in self._made.values():
                rig.close()


@pytest.fixture(scope="session")
def namespace() -> Iterator[Namespace]:
    """The network namespace that the programs run in."""
    made = Namespace()
    yield made
    made.close()


@pytest.fixture(scope="session")
def rigs(namespace: Namespace) -> Iterator[Rigs]:
    """The classifiers that are loaded so far."""
    made = Rigs(namespace)
    yield made
    made.close()


@pytest.fixture
def family(request: pytest.FixtureRequest) -> Iterator[int]:
    """The address family that is at hand throughout the test."""
    with using(request.param):
        yield request.param


@pytest.fixture
def rig(namespace: Namespace, rigs: Rigs, family: int) -> Iterator[Rig]:
    """The classifier without connections; the test runs inside the namespace."""
    with namespace.entered():
        yield rigs.get(family, CAPACITY)


@pytest.fixture
def small_rig(namespace: Namespace, rigs: Rigs, family: int) -> Iterator[Rig]:
    """The same with room for few connections."""
    with namespace.entered():
        yield rigs.get(family, SMALL_CAPACITY)
