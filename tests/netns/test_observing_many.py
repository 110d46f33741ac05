"""The benchmark of what it takes to see what goes on, in a short form: it checks that commands
print all of many connections, services and backends.
"""

from __future__ import annotations

import pytest

from bench import observing, page

pytestmark = pytest.mark.netns


def test_many_connections_are_listed_whole() -> None:
    said: list[str] = []

    found = observing.measure(1, said.append, families=(6,), connections=20_000, services=0)

    assert len(found) == len(said) == 5
    for name, cost in found.items():
        assert "20,000 connections of IPv6" in name
        assert min(cost.cpu_reader, cost.peak_reader, cost.peak_command, cost.held_up) > 0
    assert len(observing.table(found).splitlines()) == 7


def test_many_services_are_shown_whole() -> None:
    found = observing.measure(1, lambda _: None, families=(), services=60)

    assert [name.split(": ")[1] for name in found] == [
        "llb status",
        "llb status --json",
        "llb backends",
        "scrape",
    ]
    assert all(cost.seconds > 0 and cost.peak_reader == 0 for cost in found.values())


def test_the_page_is_watched_in_a_browser() -> None:
    found = page.measure(lambda _: None, services=2, backends=3, seconds=5)

    assert found.refreshes >= 1
    assert min(found.scripting, found.rendering, found.longest_gap, found.answer) > 0
    assert "| the page with 6 backends |" in page.table(found, 6)
