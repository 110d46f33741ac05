"""The benchmark of many backends, in a short form: every part comes to its end, with its figures.

`make bench ARGS=providers` has ten thousand backends.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import providers
from llb_core.demo import lab

pytestmark = pytest.mark.netns

FIGURES = {
    providers.over_many_services: 5,
    providers.in_one_service: 8,
    providers.in_a_service_of_650: 3,
    providers.beside_hanging_ones: 1,
    providers.from_consul: 2,
}
"""How many each part takes."""


def test_every_part_is_held() -> None:
    assert set(FIGURES) == set(providers.PARTS)


@pytest.mark.parametrize("part", FIGURES, ids=lambda part: part.__name__)
def test_every_part_comes_to_its_end(
    monkeypatch: pytest.MonkeyPatch, part: Callable[..., None]
) -> None:
    monkeypatch.setattr(providers, "MANY", 2000)  # A table that is filled beside the turns.
    monkeypatch.setattr(providers, "SERVICES", 4)
    monkeypatch.setattr(providers, "MIDDLE", 20)
    monkeypatch.setattr(providers, "BESIDE", (2,))
    monkeypatch.setattr(providers, "LIMIT", lab.LIMIT)
    said: list[str] = []

    found = providers.measure(1, part.__name__, said.append)

    assert len(found) == FIGURES[part]
    assert len(said) == FIGURES[part]
    assert all(figure > 0 for figures in found.values() for figure in figures)
